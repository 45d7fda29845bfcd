"""A second opinion on extraction: does this sentence say that trait, do these words support that statement?

Written apart from what it checks and sharing no code with it: plain string rules over whole sentences,
    with lists of its
own. It is stricter than it is clever: what it cannot read it calls unsupported.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from bench.fidelity.people import Trait

_TOKEN = re.compile(r"[a-z0-9]+(?:'[a-z]+)?")
_SENTENCE = re.compile(r"[^.!?\n…]+[.!?…]*")
_PART = re.compile(r"[,;:]|\b(?:and|but|because|so|though)\b", re.IGNORECASE)
_FEWEST_WORDS = 3
_CONDITIONS = {
    "if",
    "when",
    "whenever",
    "unless",
    "until",
    "once",
    "while",
    "as",
    "before",
    "after",
    "imagine",
    "suppose",
}
_ASKS_BACK = re.compile(r",\s*(?:and )?(?:you|what about|how about|wbu|hbu)\b", re.IGNORECASE)
_DENIALS = {"not", "no", "never", "none", "neither", "nor", "without", "hardly", "barely", "cannot", "nobody"}
_UNREAL = {
    "would", "could", "might", "may", "should", "wish", "wished", "if", "maybe", "perhaps", "probably", "unless",
    "almost",
    "hypothetically", "imagine", "pretend", "suppose", "supposedly", "will", "gonna", "hope", "whether",
}  # fmt: skip
_BEFORE = {"used", "formerly", "anymore", "once", "ago", "was", "were", "had", "did"}
_REPORT = {"said", "says", "saying", "told", "thinks", "asked", "claims", "believes", "wrote", "quote", "lyrics"}
_SELF = {"i", "im", "i'm", "ive", "i've", "my", "we", "our", "i'd", "i'll", "me", "mine"}
_OTHERS = {"you", "he", "she", "they", "your", "his", "her", "their"}
_OPENERS = {"well", "yes", "yeah", "haha", "hm", "honestly", "and", "so", "but", "oh", "actually", "no"}
_LIKING = {"like", "likes", "love", "loves", "enjoy", "adore", "fan", "fond", "favorite", "favourite", "into"}
_DISLIKING = {"hate", "hates", "dislikes", "dislike", "despise", "loathe", "detest", "stand"}
_HOLLOW = {
    "i", "a", "an", "the", "my", "am", "is", "are", "im", "i'm", "of", "to", "in", "at", "on", "and", "really", "so",
    "very", "do",
    "well", "yes", "haha", "just", "also", "that", "it", "we", "our", "was", "have", "has", "been", "with", "for",
    "lol", "be",
}  # fmt: skip


def words(text: str) -> list[str]:
    """Return lower-case words, ``n't`` as a word ``not`` of its own."""
    found: list[str] = []
    for token in _TOKEN.findall(text.lower().replace("’", "'")):
        if token in {"dont", "cant", "didnt", "isnt", "doesnt", "wont"}:
            found += [token[:-1].removesuffix("n"), "not"]
        elif token.endswith("n't"):
            found += [token[:-3], "not"]
        else:
            found.append(token)
    return found


def says_trait(text: str, trait: Trait) -> bool:
    """Say whether a statement about its speaker says this trait, holding or not holding as it does."""
    spoken = words(text)
    subject = next((word for word in spoken if word not in _OPENERS), "")
    # "My brother loves opera" is about the brother; "my favorite season is autumn" is about its speaker.
    wanted = {"my"} if trait.kind in {"favorite", "kin"} else _SELF - {"my", "our"}
    if subject not in wanted or not _about(spoken, trait):
        return False
    if (_UNREAL | _BEFORE) & set(spoken):
        return False
    return _affirms(spoken, trait) == trait.holds


def denies_trait(text: str, trait: Trait) -> bool:
    """Say whether a statement says the opposite of this trait."""
    return says_trait(text, Trait(trait.kind, trait.about, holds=not trait.holds))


def _about(spoken: Sequence[str], trait: Trait) -> bool:
    needed = {_bare(word) for part in trait.about for word in words(part) if word not in _HOLLOW}
    return needed <= {_bare(word) for word in spoken}


def _affirms(spoken: Sequence[str], trait: Trait) -> bool:
    denied = sum(word in _DENIALS for word in spoken) % 2 == 1
    if trait.kind not in {"like", "kin"}:
        return not denied
    if "stand" in spoken:
        return not denied
    disliked = bool(_DISLIKING & set(spoken))
    return disliked == denied


def supports(statement: str, *, quote: str, turn: str) -> bool:
    """Say whether a quotation is of the turn and says all that the statement does, of the same person, as plainly."""
    if " ".join(quote.split()) not in " ".join(turn.split()) or _speaks_for_another(turn):
        return False
    return any(
        _sentence_supports(statement, part) for sentence in _SENTENCE.findall(quote) for part in _endings(sentence)
    )


def _endings(sentence: str) -> Iterator[str]:
    """Yield the sentence, and what is left of it after each of its parts, unless a condition stands in those."""
    yield sentence
    begin = 0
    for boundary in _PART.finditer(sentence):
        part, begin = words(sentence[begin : boundary.start()]), boundary.end()
        if len(part) < _FEWEST_WORDS and boundary[0].isalpha():
            continue  # "you and I love tea" is of both
        if _CONDITIONS & set(words(sentence[: boundary.end()])):
            return
        yield sentence[boundary.end() :]


def _sentence_supports(statement: str, sentence: str) -> bool:
    stated, said = words(statement), words(sentence)
    content = {_bare(word) for word in stated if word not in _HOLLOW and word not in _DENIALS}
    if not content or not content <= {_bare(word) for word in said}:
        return False
    # Only what stands before the last word in common can turn it round; a question mark turns the whole.
    last = max(index for index, word in enumerate(said) if _bare(word) in content)
    head = said[: last + 1]
    if sentence.rstrip().endswith("?") and not _ASKS_BACK.search(sentence):
        return False
    if not _SELF & set(head) or _first(head, _OTHERS) < _first(head, _SELF):
        return False
    return all(_held(stated, signs) == _held(head, signs) for signs in (_DENIALS, _UNREAL, _BEFORE)) and (
        _leaning(stated) == _leaning(head)
    )


def _held(spoken: Iterable[str], signs: set[str]) -> bool:
    return any(word in signs for word in spoken)


def _leaning(spoken: Sequence[str]) -> Literal["for", "against", "neither"]:
    if _DISLIKING & set(spoken):
        return "against"
    return "for" if _LIKING & set(spoken) else "neither"


def _first(spoken: Sequence[str], wanted: set[str]) -> int:
    return next((index for index, word in enumerate(spoken) if word in wanted), len(spoken))


def _speaks_for_another(turn: str) -> bool:
    return bool(_REPORT & set(words(turn))) or bool(re.search(r"[\"“”«»]|^\s*>", turn))


def _bare(word: str) -> str:
    """Cut the commonest endings, so that ``loves`` and ``love`` are one."""
    for ending in ("ing", "ies", "es", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)].rstrip("e")
    return word.rstrip("e") if len(word) > 3 else word


def same_fact(one: str, other: str) -> bool:
    """Say whether two people's facts are one: the same things in the same polarity, however strongly liked."""
    first, second = words(one), words(other)
    if _held(first, _DENIALS) != _held(second, _DENIALS) or _leaning(first) != _leaning(second):
        return False
    hollow = _HOLLOW | _LIKING | _DISLIKING
    a, b = ({_bare(w) for w in spoken if w not in hollow} for spoken in (first, second))
    return bool(a) and len(a & b) / len(a | b) >= 0.8
