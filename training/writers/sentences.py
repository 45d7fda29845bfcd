"""A turn's text as sentences, and which of them the user plainly meant about themselves."""

from __future__ import annotations

import re
from collections.abc import Iterator

MIN_WORDS, MAX_WORDS = 3, 32

_BOUNDARY = re.compile(r"(?<=[.!?])[\"')\]]*\s+|\n+")
_FENCE = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_QUOTED_LINE = re.compile(r"^\s*>.*$", re.MULTILINE)
_QUOTED = re.compile(r"\"[^\"]*\"|“[^”]*”")
_LINK = re.compile(r"https?://|www\.", re.IGNORECASE)

# Not about what is: questions, wishes, conditions, guesses, jokes.
_UNCERTAIN = re.compile(
    r"\b(?:if|would|wouldn't|i'd|could|couldn't|might|may|maybe|perhaps|probably|possibly|wish|suppose|imagine"
    r"|pretend|guess|kidding|jk|not sure|unsure|i don'?t know|hypothetically|let'?s say|should i|shall i)\b"
)


def sentences(text: str) -> Iterator[str]:
    """Yield the sentences of what a user typed, without code, quoted lines and pasted fences.

    A line break ends a sentence, as people do in chats.
    """
    text = _QUOTED_LINE.sub("", _FENCE.sub("\n", text))
    for piece in _BOUNDARY.split(text):
        sentence = " ".join(piece.split())
        if sentence:
            yield sentence


def is_plain(sentence: str) -> bool:
    """Say whether a sentence states something in the user's own words: no question, hedge, wish, quote or link."""
    if not MIN_WORDS <= len(sentence.split()) <= MAX_WORDS:
        return False
    if "?" in sentence or _QUOTED.search(sentence) or _LINK.search(sentence):
        return False
    return _UNCERTAIN.search(plain_case(sentence)) is None


def plain_case(sentence: str) -> str:
    """Return the sentence in lower case with straight apostrophes, for matching only."""
    return sentence.lower().replace("’", "'").replace("`", "'")
