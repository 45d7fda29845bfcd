"""First-person statements: which sentences say something about the user, on which topic, with which polarity.

Rules are tried in order and the first that fits decides. They are written for everyday English; a sentence that fits
none is left alone, since a wrong statement about a person costs more than a missing one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from training.writers.sentences import is_plain, plain_case

Polarity = Literal["like", "dislike"]

_I = r"\b(?:i|i myself|me and my \w+)"
_AM = r"\b(?:i am|i'm|im|ive been|i've been|i have been)"
_OFTEN = (
    r"(?:(?:really|also|do|just|actually|definitely|especially|absolutely|still|personally|always|usually|kinda|kind of"
    r"|totally|generally|mostly|super|very|much|honestly|truly|so|pretty|currently|now|only|mainly|both|have always"
    r"|normally|sometimes|often|mostly|already|never really) +)*"
)
_NOT = r"(?:don't|dont|do not|didn't|did not|never|don't really|dont really|do not really|don't even)"
_A = r"(?:a|an|the|one|two|three|four|five|six|seven|\d+|some|several|many|no)"
_KIN = (
    r"(?:wife|husband|spouse|partner|mom|mum|mother|dad|father|parents?|brothers?|sisters?|siblings?|sons?|daughters?"
    r"|kids?|child|children|girlfriend|boyfriend|fianc[eé]e?|roommates?|friends?|best friend|family|grandma|grandpa"
    r"|grandmother|grandfather|uncle|aunt|cousins?|nephews?|nieces?|dogs?|cats?|pets?|puppy|kitten|bird|fish|horse)"
)
_WORK = (
    r"(?:student|teacher|engineer|developer|programmer|nurse|doctor|lawyer|writer|designer|manager|musician|artist"
    r"|researcher|scientist|accountant|consultant|freshman|sophomore|junior|senior|intern|tutor|ta|chef|cook|driver"
    r"|salesman|cashier|waiter|waitress|mechanic|photographer|professor|analyst|major|minor|tester|assistant)"
)
_THING = (
    r"(?:car|truck|bike|bicycle|motorcycle|house|apartment|condo|phone|laptop|computer|guitar|piano|keyboard|ukulele"
    r"|violin|drums?|camera|tv|xbox|playstation|ps4|switch|console|boat|garden|collection|shirt|shoes|hat|watch|board"
    r"|telescope|tent|skateboard|snowboard|skis|books?|albums?|iphone|android|tablet|ipad|kindle|desk|bed|couch|tattoo)"
)
_ACTIVITY = (
    r"(?:play|watch|read|run|cook|bake|swim|hike|climb|ski|snowboard|skate|paint|draw|sing|dance|write|listen to"
    r"|go to the|go (?:running|hiking|swimming|camping|skiing|fishing|shopping|biking|climbing)|wake up|get up|sleep"
    r"|eat|drink|exercise|work out|workout|travel|collect|drive|walk|bike|garden|program|code|meditate|pray|volunteer)"
)
_CLAUSE_END = re.compile(
    r"\s*(?:[,;:.!()~*]|-{1,2} |\b(?:but|because|cause|cuz|since|when|though|although|while|and|so|unless|until|except"
    r"|however|if|too|either|lol|haha+|as well|also|anyway|right now|at all|which|who|that i|that's|that is)\b).*$"
)
# An object that points at something said before means nothing on its own.
_POINTING = re.compile(
    r"^(?:it|its|it's|that|that's|thats|this|these|those|them|they|him|her|he|she|you|your|yours|me|so|not|one|ones|both|all"
    r"|any|either|neither|what|when|where|how|who|there|here|to|the (?:same|first|second|last|other|idea|way|one)"
    r"|same|when|stuff|things?)\b"
)
_DANGLING = re.compile(r"to|with|of|for|at|in|on|about|by|from|the|a|an|my|that|more|most|much|lot")
_VAGUE = re.compile(
    r"\b(?:like (?:that|this|it|those|these)|this stuff|these things|this chat|(?:chatting|talking) (?:with|to) you"
    r"|your (?:name|idea|answer))\b"
)
# What somebody else says of the user, or what is denied around the statement rather than in it.
_NOT_THEIRS = re.compile(
    r"\b(?:said|says|saying|told|tells|wrote|writes|asked|asks|thinks|believes|assumes|claims|character|lyrics"
    r"|not true|isn't true|no longer|not only|don't only|(?:can't|cannot|never|won't|don't) say"
    r"|(?:nobody|everyone|everybody|people|they|you) (?:say|think|believe|assume))\b"
)
_NOT_A_THING = re.compile(r"\b(?:like|love|enjoy|hate|dislike|adore|prefer) (?:nothing|nobody|no|none|anything but)\b")


@dataclass(frozen=True, kw_only=True)
class Statement:
    """One sentence of the user's about themselves.

    `object` is what a like or dislike is about, in the user's wording; None for every other topic, and where
    it cannot be cut out of the sentence safely.
    """

    sentence: str
    topic: str
    polarity: Polarity | None = None
    object: str | None = None


@dataclass(frozen=True, kw_only=True)
class _Rule:
    topic: str
    pattern: re.Pattern[str]
    polarity: Polarity | None = None


def _rule(topic: str, pattern: str, polarity: Polarity | None = None) -> _Rule:
    return _Rule(topic=topic, pattern=re.compile(pattern), polarity=polarity)


_RULES: tuple[_Rule, ...] = (
    _rule("habits", rf"{_I} used to (?P<object>\w.*)"),
    _rule("dislikes", rf"{_I} {_OFTEN}{_NOT} {_OFTEN}(?:like|love|enjoy|care for) (?P<object>\w.*)", "dislike"),
    _rule("dislikes", rf"{_I} {_OFTEN}(?:hate|dislike|despise|detest|loathe) (?P<object>\w.*)", "dislike"),
    _rule("dislikes", rf"{_I} {_OFTEN}(?:can't|cant|cannot) stand (?P<object>\w.*)", "dislike"),
    _rule(
        "dislikes",
        rf"{_AM} {_OFTEN}not (?:really |much |that |a |big |huge )*(?:into|fan of) (?P<object>\w.*)",
        "dislike",
    ),
    _rule("dislikes", rf"{_AM} {_OFTEN}(?:afraid|scared|terrified|allergic|sick) (?:of|to) (?P<object>\w.*)"),
    _rule("preferences", rf"{_I} {_OFTEN}prefer (?P<object>\w.*)"),
    _rule(
        "preferences",
        r"\bmy (?:\w+ )?(?:favorite|favourite|fav|fave)s?\b.*\b(?:is|are|was|were|would be|'s) (?P<object>\w.*)",
    ),
    _rule("interests", rf"{_I} {_OFTEN}(?:like|love|enjoy|adore) (?P<object>\w.*)", "like"),
    _rule(
        "interests", rf"{_AM} {_OFTEN}(?:into|interested in|obsessed with|passionate about) (?P<object>\w.*)", "like"
    ),
    _rule("interests", rf"{_AM} {_OFTEN}(?:a |big |huge |massive )*fan of (?P<object>\w.*)", "like"),
    _rule("work_and_study", rf"{_I} {_OFTEN}(?:work|worked) (?:at|as|in|for|on|with|part|full|from) (?P<object>\w.*)"),
    _rule("work_and_study", rf"{_I} {_OFTEN}(?:study|studied|teach|taught|majored|graduated|major) (?P<object>\w.*)"),
    _rule(
        "work_and_study", rf"{_AM} {_OFTEN}(?:studying|majoring|working|teaching|graduating|taking) (?P<object>\w.*)"
    ),
    _rule(
        "work_and_study", rf"{_AM} (?!.*\bnot\b){_OFTEN}(?:in )?(?:an? |the )?(?:\w+ ){{0,3}}{_WORK}\b(?P<object>.*)"
    ),
    _rule(
        "work_and_study",
        r"\bmy (?:job|work|major|boss|degree|field|company|career|thesis|school|college)\b (?P<object>\w.*)",
    ),
    _rule("people_and_pets", rf"{_I} {_OFTEN}(?:have|had|got|own|adopted) {_A} (?:\w+ ){{0,3}}{_KIN}\b(?P<object>.*)"),
    _rule("people_and_pets", rf"\bmy (?:\w+ )?{_KIN}\b(?:'s)? (?P<object>\w.*)"),
    _rule(
        "people_and_pets", rf"{_AM} {_OFTEN}(?P<object>(?:married|engaged|single|the (?:oldest|youngest|middle))\b.*)"
    ),
    _rule(
        "places",
        rf"{_I} {_OFTEN}(?:live|lived|grew up|was born|was raised|moved|come|visited|travell?ed)\b (?P<object>\w.*)",
    ),
    _rule("places", rf"{_AM} {_OFTEN}(?:from|living in|moving to) (?P<object>\w.*)"),
    _rule("places", rf"{_I}(?:'ve| have)? {_OFTEN}(?:been|went) to (?P<object>\w.*)"),
    _rule(
        "possessions",
        rf"{_I} {_OFTEN}(?:have|own|bought|got|just got) (?:{_A}|my) (?:\w+ ){{0,3}}{_THING}\b(?P<object>.*)",
    ),
    _rule("possessions", rf"\bmy (?:\w+ )?{_THING} (?:is|are|was|has) (?P<object>\w.*)"),
    _rule(
        "habits", rf"{_I} (?:usually|always|often|never|sometimes|typically|normally|rarely|mostly) (?P<object>\w.*)"
    ),
    _rule("habits", rf"{_I} {_OFTEN}{_ACTIVITY}\b (?P<object>\w.*)"),
    _rule("opinions", rf"{_I} {_OFTEN}(?:think|believe|find|feel like|feel that) (?:that )?(?P<object>\w.*)"),
)


def read_statement(sentence: str) -> Statement | None:
    """Return what a sentence says about its writer; None when it says nothing plain."""
    if not is_plain(sentence):
        return None
    text = plain_case(sentence)
    if _VAGUE.search(text) or _NOT_THEIRS.search(text) or _NOT_A_THING.search(text):
        return None
    for rule in _RULES:
        found = rule.pattern.search(text)
        if found is None:
            continue
        rest = found["object"].strip()
        if _POINTING.match(rest) and not (rule.polarity and rest.startswith("to ")):
            return None
        return Statement(
            sentence=sentence,
            topic=rule.topic,
            polarity=rule.polarity,
            object=_object(sentence, found.start("object")) if rule.polarity else None,
        )
    return None


def _object(sentence: str, start: int) -> str | None:
    """Cut what is liked out of the sentence, in the user's spelling; None when it is not one short thing."""
    words = _CLAUSE_END.sub("", plain_case(sentence)[start:]).split()
    if not 1 <= len(words) <= 5 or _DANGLING.fullmatch(words[-1]):
        return None
    return " ".join(sentence[start:].split()[: len(words)]).rstrip(".,!;:)")
