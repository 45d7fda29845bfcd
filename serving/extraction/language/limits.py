"""What stands around a clause and limits it or takes it back: ``when drunk, …``, ``… but that was long ago``.

Careful rather than clever, as the rest of the house: a clause with any of these signs about it supports nothing. Each
pattern is anchored or looks for fixed words, so that reading takes time linear in the text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from serving.extraction.language.lexicon import DISLIKES, OPENERS

_OPENERS = "|".join(sorted(OPENERS))


def _any(*alternatives: str) -> str:
    return f"(?:{'|'.join(alternatives)})"


# A first part that begins so holds for what follows it in the sentence: "when drunk, I like football".
_CONDITIONS = _any(
    "if|when|whenever|unless|once|until|till|while|assuming|supposing|suppose|imagine|pretend|say|either|or|not that",
    "let['’]?s (?:say|pretend|imagine)|hypothetically|theoretically|supposedly|allegedly|rumou?r has",
    "according to|unlike|in (?:theory|my dreams?|a dream|the past|a past life|another life)",
    "in the (?:game|movie|film|book|story|novel|play|show)|in my (?:novel|story|game|fantasy)",
    "as an? (?:kid|child|teen|teenager|student|boy|girl|baby|joke)|as if|as though",
    "far from (?:it|that)|never in|by no means|under no circumstances|in no|no way",
    "back (?:when|then|in)|years ago|before|after|(?:on )?some days|one day|used to",
    r"true or false|fact or fiction|two truths|for (?:example|instance|the sake)|example|e\.?g\.?",
)
_SETTING = re.compile(rf"^(?:(?:{_OPENERS})\b[\s,.!…-]++)*+{_CONDITIONS}\b", re.IGNORECASE)
# "like I care": irony, as the answer to a reproach is.
_IRONY = re.compile(
    r"^(?:like|as if|as though)\s++(?:i|we|my)\b|^(?:oh|yeah|yes|well|ha)[\s,]++su+re\b|^su{2,}re\b", re.IGNORECASE
)
# What is said later in the sentence, or as the next one, and takes the claim back.
_LATER = _any(
    "any ?more|no longer|not any longer|years ago|ages ago|long ago|back then|in the past|when i was|used to|until",
    "not really|in theory|on paper|just kidding|kidding|i lied|a lie|made that up|stopped|gave (?:it|that|them) up",
    "quit (?:it|that|doing)|grew out of|over it now|changed my mind",
)
_TAKEN_BACK_LATER = re.compile(rf"\b{_LATER}\b", re.IGNORECASE)
_BUT_THAT_WAS = re.compile(
    r"^(?:but|though|although|however|only|except)[\s,]++(?:that|it|those|they|this)(?:\s++(?:was|were|is not|isn['’]t"
    r"|isnt|ended)|['’]s not)\b",
    re.IGNORECASE,
)
_BUT_NOT_IT = re.compile(
    r"^(?:but|though|although|however)\b.{0,60}?\b(?:not|never|don['’]?t|can['’]?t|didn['’]?t|won['’]?t"
    rf"|{'|'.join(sorted(DISLIKES))})(?:\s++\w++){{0,2}}?\s++(?:it|that|them|those)\b",
    re.IGNORECASE | re.DOTALL,
)
_TAKEN_BACK_NEXT = _any(
    r"not?[\s.!)]*+$|nope\b|no[,\s]++(?:not|wait|just)\b|no[,\s]++i don['’]?t[\s.!]*+$",
    r"lies?[\s.!]*+$|i wish[\s.!…]*+$|right\.{2,}",
    r"not (?:really|any ?more|true|at all|that i|now|since|lately)\b|(?:just |only )?kidding\b|jk\b|psych\b|sike\b",
    r"lol[\s,]++(?:jk|no|not|kidding)\b|as if\b|yeah right\b|said\b|or (?:so|at least|not|maybe|did|used|rather|was)\b",
    r"(?:well|actually|wait|hm+|ok|okay)[\s,.…]++(?:not|no|used|had|was|were|i used|i had|i was|i lied|i don['’]?t"
    r"|maybe|until|before)\b",
    r"i mean[\s,]++(?:not|no|used|i used|he|she|they|my|i don['’]?t|i was)\b|at least (?:not|that|so|it)\b",
    r"but (?:that|those|it) (?:was|were)\b|used to\b|until\b|till\b|unless\b|except\b|if only\b|wait\b|on paper\b",
    r"(?:that|those|it) (?:was|were) (?:years|ages|long|back|in my|before|when|a joke|a lie|then)\b",
    r"in (?:theory|my dreams?|a past life|the game|a dream)\b|is what\b|scratch that\b|never ?mind\b|i lied\b|false\b",
    r"that['’]?s (?:a lie|not true|false|what)\b|(?:but )?i (?:quit|stopped|gave (?:it|that|them) up)\b",
    r"(?:my|his|her) (?:brother|sister|mom|mum|dad|mother|father|wife|husband|friend)['’]s words\b|end quote\b",
    r"unquote\b|(?:or )?did i\b|do i\b|wrong\b|disagree\b|(?:i am|i['’]m|just) lying\b|april fools?\b|❌",
)
_NEXT_SENTENCE = re.compile(rf"^[\"'(\[\s–—-]*+{_TAKEN_BACK_NEXT}", re.IGNORECASE)
_ELLIPSIS = re.compile(r"(?:\.{2,}|…)$")
# After an ellipsis these begin something new; any other small letter goes on with what was said.
_BEGINS_ANEW = re.compile(
    rf"(?:{_OPENERS}|i|i['’]m|im|my|we|he|she|they|you|your|u|it|that['’]?s|what|how|do|does|did|are|is|have|can|where|who|why|which"
    r"|when did|nice|great|cool|good|thanks|thank|hbu|wbu|its|it['’]s|same|love|the)\b",
    re.IGNORECASE,
)
# "I like football - Lionel Messi" is somebody's saying.
_ATTRIBUTED = re.compile(
    r"^(?:[A-Z][\w.'’]*+(?:\s++[A-Z][\w.'’]*+){0,2}|anon(?:ymous)?|unknown|my \w++)(?:,?\s++\d{2,4})?[\s.]*+$"
)


def limited_clauses(parts: Sequence[str], *, sentence: str, following: str) -> frozenset[int]:
    """Return which clauses of a sentence are limited by the rest of it, or by the sentence that follows."""
    if not parts:
        return frozenset()
    if _next_takes_back(sentence, following) or _IRONY.search(sentence):
        return frozenset(range(len(parts)))
    first_limited = next((index for index, part in enumerate(parts) if _SETTING.search(part)), len(parts))
    last_taken_back = max((index for index, part in enumerate(parts) if index and _takes_back(part)), default=0)
    return frozenset((*range(last_taken_back), *range(first_limited, len(parts))))


def _takes_back(part: str) -> bool:
    return bool(
        _TAKEN_BACK_LATER.search(part)
        or _BUT_THAT_WAS.search(part)
        or _BUT_NOT_IT.search(part)
        or _ATTRIBUTED.search(part)
    )


def _next_takes_back(sentence: str, following: str) -> bool:
    if not following:
        return False
    if _NEXT_SENTENCE.search(following):
        return True
    goes_on = following[0].islower() and not _BEGINS_ANEW.match(following)
    return bool(_ELLIPSIS.search(sentence)) and goes_on
