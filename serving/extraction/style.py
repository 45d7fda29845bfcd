"""How a person writes, measured from their own turns: each pattern says of how many turns it was counted.

Nothing here asks a model. A pattern is left out when there are too few turns to tell.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from statistics import median

from serving.extraction.profile.profile import Pattern
from transcripts.transcript import Transcript

MIN_TURNS = 10

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_SENTENCE_MARK = re.compile(r"[.!?…][\"')\]]*$")
_EMOJI = re.compile("[\U0001f300-\U0001faff☀-➿]|(?<!\\w)[:;=][-']?[)(DPpOo/](?!\\w)|<3|\\bxD\\b")
_LAUGHTER = re.compile(r"\b(?:a*(?:ha){2,}h?|l+o+l+|lmao|rofl|(?:he){2,})\b", re.IGNORECASE)
_CONTRACTION = re.compile(r"\b\w+n['’]t\b|\bi['’](?:m|ve)\b|\b(?:it|that|what)['’]s\b", re.IGNORECASE)
_BARE_CONTRACTION = re.compile(
    r"\b(?:dont|doesnt|didnt|cant|wont|isnt|arent|wasnt|werent|havent|hasnt|couldnt|wouldnt|shouldnt|im|ive|thats|whats)\b",
    re.IGNORECASE,
)
_SHOUTED = re.compile(r"\b[A-Z]{4,}\b")

_SHARES: tuple[tuple[str, str, Callable[[str], object]], ...] = (
    ("starts_lower_case", "starts a message with a lower-case letter", lambda t: t[0].islower()),
    ("ends_with_full_stop", "ends a message with a full stop", lambda t: re.search(r"(?<!\.)\.$", t)),
    ("ends_without_mark", "ends a message without any punctuation", lambda t: not _SENTENCE_MARK.search(t)),
    ("asks", "asks a question", lambda t: "?" in t),
    ("exclaims", "uses an exclamation mark", lambda t: "!" in t),
    ("repeats_marks", "repeats marks (!!, ??, …)", lambda t: re.search(r"[!?]{2,}|\.{2,}|…", t)),
    ("emoji", "uses an emoji or emoticon", _EMOJI.search),
    ("laughs", "laughs in writing (haha, lol)", _LAUGHTER.search),
    ("shouts", "writes a whole word in capitals", _SHOUTED.search),
)


def measure_style(transcripts: Iterable[Transcript]) -> tuple[Pattern, ...]:
    """Return the patterns of the user's own turns; none when there are fewer than `MIN_TURNS`."""
    turns = [text for t in transcripts for turn in t.user_turns if (text := turn.text.strip())]
    if len(turns) < MIN_TURNS:
        return ()
    found = [_length(turns), *(_share(turns, *share) for share in _SHARES)]
    return tuple(pattern for pattern in (*found, _apostrophes(turns)) if pattern is not None)


def _length(turns: Sequence[str]) -> Pattern:
    words = median(len(_WORD.findall(turn)) for turn in turns)
    text = f"Half of the messages have {words:g} words or fewer."
    at_most = sum(len(_WORD.findall(turn)) <= words for turn in turns)
    return Pattern(name="median_words", text=text, unit="words", value=words, count=at_most, of=len(turns))


def _share(turns: Sequence[str], name: str, does: str, test: Callable[[str], object]) -> Pattern:
    count = sum(bool(test(turn)) for turn in turns)
    return _counted(name, does, count=count, of=len(turns), unit_text="messages")


def _apostrophes(turns: Sequence[str]) -> Pattern | None:
    bare = sum(len(_BARE_CONTRACTION.findall(turn)) for turn in turns)
    total = bare + sum(len(_CONTRACTION.findall(turn)) for turn in turns)
    if total < MIN_TURNS:
        return None
    return _counted(
        "drops_apostrophes", "leaves out the apostrophe (dont, im)", count=bare, of=total, unit_text="contractions"
    )


def _counted(name: str, does: str, *, count: int, of: int, unit_text: str) -> Pattern:
    share = count / of
    text = f"{_how_often(share)} {does}: {count} of {of} {unit_text}."
    return Pattern(name=name, text=text, unit="share", value=round(share, 4), count=count, of=of)


def _how_often(share: float) -> str:
    for least, word in ((0.9, "Nearly always"), (0.6, "Mostly"), (0.4, "About half the time"), (0.15, "Often")):
        if share >= least:
            return word
    if share >= 0.05:
        return "Sometimes"
    return "Rarely" if share else "Never"
