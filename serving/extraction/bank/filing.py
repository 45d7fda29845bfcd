"""Under which topic a statement belongs: one it was asked under if it fits, else the first of the bank that fits."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from serving.extraction.bank.bank import Bank, Topic
from serving.extraction.language.clauses import Clause
from serving.extraction.language.words import read_words


def topic_of(clause: Clause, *, bank: Bank, asked_under: Sequence[str] = ()) -> str | None:
    """Return the topic to file a statement under; None when it fits none."""
    by_name = {topic.topic: topic for topic in bank.topics}
    candidates = [*(by_name[name] for name in asked_under if name in by_name), *bank.topics]
    stems = _spaced(clause.text)
    return next((topic.topic for topic in candidates if _fits(clause, stems, topic)), None)


def _fits(clause: Clause, stems: str, topic: Topic) -> bool:
    if topic.stance is not None:
        return clause.stance == topic.stance
    return any(_cue(cue) in stems for cue in topic.cues)


@lru_cache(maxsize=10_000)
def _cue(cue: str) -> str:
    return _spaced(cue)


def _spaced(text: str) -> str:
    return f" {' '.join(word.stem for word in read_words(text))} "
