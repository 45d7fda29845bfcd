"""What can be wrong with examples, and each check that finds it.

A check returns findings and drops nothing; the dataset's configuration says what becomes of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from training.config import DatasetConfig
from training.examples import Example
from training.quality.shingles import Neighbours, Shingles, containment, jaccard, shingles

Problem = Literal["duplicate", "near_duplicate", "leak", "platitude", "too_short", "imbalance"]
PROBLEMS: tuple[Problem, ...] = ("duplicate", "near_duplicate", "leak", "platitude", "too_short", "imbalance")

_LEAK_WORDS = 6  # what is shorter is common property; equal answers of four are dropped by the selection
_DOMINANT_TOPIC = 0.6
_MIN_BALANCED = 8  # of fewer, shares say nothing


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One example that something is wrong with: where it stands, and what it was compared with.

    `index` is its place among the examples checked, None for what is wrong with all together; `other` is the text that
    it repeats, for people to judge by; `value` is what was measured: a similarity, nats per token, words, a share.
    """

    problem: Problem
    index: int | None
    value: float
    other: str | None = None
    note: str = ""


def find_duplicates(examples: Sequence[Example], *, config: DatasetConfig) -> Iterator[Finding]:
    """Find pairs that ask and answer nearly what an earlier pair does.

    One answer under differently worded questions is meant to be there: both question and answer have to agree.
    """
    neighbours = Neighbours([example.completion for example in examples], similarity=config.near_duplicate)
    asked = [shingles(example.prompt[-1].content) for example in examples]
    exact: dict[tuple[object, str], int] = {}
    for index, example in enumerate(examples):
        earlier = exact.setdefault((example.prompt, example.completion), index)
        if earlier != index:
            yield Finding(problem="duplicate", index=index, value=1.0, other=examples[earlier].completion)
            continue
        same = [
            (other, alike)
            for other in neighbours.of(index)
            if (alike := jaccard(asked[index], asked[other])) >= config.near_duplicate
            if _verdicts_agree(example, examples[other])
        ]
        if same:
            other, alike = same[0]
            yield Finding(problem="near_duplicate", index=index, value=alike, other=examples[other].completion)
        else:
            neighbours.add(index)


def _verdicts_agree(first: Example, second: Example) -> bool:
    """Yes to one thing and no to another are different pairs, however alike they look."""
    return first.answer == second.answer


def find_leaks(
    examples: Sequence[Example],
    held_out: Sequence[Example],
    *,
    held_out_transcripts: frozenset[str],
    config: DatasetConfig,
) -> Iterator[Finding]:
    """Find what a held-out reply could be known from: its transcript, its text nearly repeated, or contained."""
    kept_back = [(reply, found) for reply in held_out if _is_telling(reply) and (found := shingles(reply.completion))]
    for index, example in enumerate(examples):
        if example.transcript_id in held_out_transcripts:
            yield Finding(problem="leak", index=index, value=1.0, note="of a held-out transcript")
            continue
        for text in _texts(example):
            leak = _closest(shingles(text), kept_back)
            if leak is not None and leak[1] >= config.near_duplicate:
                yield Finding(problem="leak", index=index, value=leak[1], other=leak[0].completion)
                break


def _is_telling(reply: Example) -> bool:
    return len(reply.completion.split()) >= _LEAK_WORDS


def _texts(example: Example) -> list[str]:
    """What the model would learn from, or see: the answer, and in a reply's prompt the user's own earlier turns."""
    return [example.completion, *(message.content for message in example.prompt if message.role == "assistant")]


def _closest(own: Shingles, kept_back: Sequence[tuple[Example, Shingles]]) -> tuple[Example, float] | None:
    scored = [(reply, containment(found, own)) for reply, found in kept_back if not found.isdisjoint(own)]
    return max(scored, key=lambda pair: pair[1], default=None)


def find_platitudes(
    examples: Sequence[Example], losses: Sequence[float | None], *, config: DatasetConfig
) -> Iterator[Finding]:
    """Find answers that the bare base gives by itself; `losses` are nats per token, None for what was not scored."""
    for index, loss in enumerate(losses):
        if loss is not None and loss < config.platitude_nats and examples[index].kind != "negative":
            yield Finding(problem="platitude", index=index, value=loss)


def find_short(examples: Sequence[Example], *, config: DatasetConfig) -> Iterator[Finding]:
    """Find answers of too few words; a yes or a no before them does not count."""
    for index, example in enumerate(examples):
        words = example.completion.split()
        count = len(words) - (1 if example.answer is not None and words else 0)
        if count < config.min_words:
            yield Finding(problem="too_short", index=index, value=float(count))


def find_imbalance(examples: Sequence[Example], *, config: DatasetConfig) -> Iterator[Finding]:
    """Find one answer, or one topic, that outweighs the others so much that guessing it would do."""
    answers = Counter(example.answer for example in examples if example.answer is not None)
    asked = sum(answers.values())
    if asked >= _MIN_BALANCED:
        share = answers["yes"] / asked
        if abs(share - config.yes_share) > config.yes_share_tolerance + 1e-9:
            yield Finding(
                problem="imbalance",
                index=None,
                value=share,
                note=f"yes is the answer to {share:.0%} of {asked} questions",
            )
    topics = Counter(example.topic for example in examples if example.topic is not None)
    total = sum(topics.values())
    if total >= _MIN_BALANCED:
        topic, count = min(topics.items(), key=lambda pair: (-pair[1], pair[0] or ""))
        if count / total > _DOMINANT_TOPIC:
            yield Finding(
                problem="imbalance",
                index=None,
                value=count / total,
                note=f"{count / total:.0%} of the statements are on {topic}",
            )
