"""A model's answer as examples: what is not well formed, not supported or contradicts itself is left out, with why.

A model may invent. A pair that claims support must quote the user's own turn; the quotation is looked up there, and a
pair whose quotation is not found is dropped, however well it reads.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from training.examples import Answer, Example, ask
from training.writers.plan import Item, ShownTurn
from training.writers.wording import topics

REASONS = (
    "not_json",  # the answer is no JSON
    "no_pairs",  # nor a JSON object with a list of `pairs`
    "malformed",  # a pair lacks something or has something of the wrong kind
    "too_long",
    "unsupported",  # the quotation is not in the person's words
    "contradictory",  # verdict and answer disagree, or a yes/no question has none
    "repeated",
    "surplus",  # more than were asked for
)
_MAX_QUESTION = 300
_MIN_QUOTE_CHARACTERS = 3
_FENCE = re.compile(r"^\s*```(?:json)?\s*(.*?)\s*```\s*$", re.DOTALL)
_VERDICT = re.compile(r"^\W*(yes|no)\b", re.IGNORECASE)
_SURROGATE = re.compile(r"[\ud800-\udfff\x00]")

_Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class _Pair(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    question: _Text
    answer: _Text
    verdict: Literal["yes", "no", "none"]
    topic: str
    supported: bool
    turn: int | None = None
    quote: str | None = None


@dataclass(frozen=True, kw_only=True)
class ReadAnswer:
    """What one answer gave."""

    examples: tuple[Example, ...]
    dropped: Counter[str]

    @property
    def readable(self) -> bool:
        """Whether the answer was JSON of the right form at all."""
        return not self.dropped["not_json"] and not self.dropped["no_pairs"]


def read_answer(text: str, item: Item, *, max_completion_characters: int) -> ReadAnswer:
    """Return the examples in a model's answer to `item`, in its order, and how many pairs were dropped for what."""
    found = _load(text)
    if isinstance(found, str):
        return ReadAnswer(examples=(), dropped=Counter({found: 1}))
    examples: list[Example] = []
    dropped: Counter[str] = Counter()
    asked: set[str] = set()
    for value in found:
        if len(examples) == item.pairs:
            dropped["surplus"] += 1
            continue
        example = _read_pair(value, item, max_completion_characters)
        if isinstance(example, str):
            dropped[example] += 1
        elif (key := _plain(example.prompt[0].content)) in asked:
            dropped["repeated"] += 1
        else:
            asked.add(key)
            examples.append(example)
    return ReadAnswer(examples=tuple(examples), dropped=dropped)


def _load(text: str) -> list[Any] | str:
    """Return the pairs in an answer, or the reason why there are none."""
    fenced = _FENCE.match(text)
    try:
        value = json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError):
        return "not_json"
    pairs = value.get("pairs") if isinstance(value, dict) else None
    return pairs if isinstance(pairs, list) else "no_pairs"


def _read_pair(value: Any, item: Item, max_completion_characters: int) -> Example | str:
    """Return the example, or the reason why it is none."""
    try:
        pair = _Pair.model_validate(value)
    except ValidationError:
        return "malformed"
    if pair.topic not in topics() or _SURROGATE.search(pair.question + pair.answer):
        return "malformed"
    if (pair.verdict == "none") != (item.form == "open"):
        return "contradictory"
    completion = _completion(pair)
    if completion is None:
        return "contradictory"
    if len(pair.question) > _MAX_QUESTION or len(completion) > max_completion_characters:
        return "too_long"
    turn = _supporting_turn(pair, item) if pair.supported else _first_turn(item)
    if turn is None:
        return "unsupported"
    verdict: Answer | None = None if pair.verdict == "none" else pair.verdict
    negative = not pair.supported or verdict == "no"
    return Example(
        kind="negative" if negative else "statement",
        prompt=ask(pair.question),
        completion=completion,
        transcript_id=turn.transcript_id,
        turn_index=turn.turn_index,
        topic=None if negative else pair.topic,
        answer=verdict,
    )


def _completion(pair: _Pair) -> str | None:
    """Return the answer, beginning with the verdict where there is one; None when it begins with the other."""
    if pair.verdict == "none":
        return pair.answer
    begins = _VERDICT.match(pair.answer)
    if begins is None:
        return f"{pair.verdict.capitalize()}. {pair.answer}"
    return pair.answer if begins[1].lower() == pair.verdict else None


def _supporting_turn(pair: _Pair, item: Item) -> ShownTurn | None:
    """Return the person's turn that holds the quotation: the named one, else any other of theirs in the chunk."""
    quote = _plain(pair.quote or "")
    if len(quote) < _MIN_QUOTE_CHARACTERS:
        return None
    theirs = [turn for turn in item.chunk.turns if turn.is_user]
    for turn in sorted(theirs, key=lambda turn: turn.number != pair.turn):
        if f" {quote} " in f" {_plain(turn.text)} ":
            return turn
    return None


def _first_turn(item: Item) -> ShownTurn | None:
    """Return what an unsupported pair is filed under: it is about what none of the turns say."""
    return next((turn for turn in item.chunk.turns if turn.is_user), None)


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))
