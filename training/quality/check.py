"""All checks over a dataset's examples, and what becomes of what they find."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from training.config import Action, DatasetConfig
from training.examples import Example
from training.quality.findings import (
    Finding,
    Problem,
    find_duplicates,
    find_imbalance,
    find_leaks,
    find_platitudes,
    find_short,
)
from training.quality.report import QualityReport, make_report

Scorer = Callable[[Sequence[Example]], Sequence[float | None]]
"""Gives each example's loss under the bare base in nats per completion token; None for one that does not fit."""
Choose = Callable[[Sequence[Example]], Sequence[Example]]
"""Gives those of the examples that are to be trained on."""


@dataclass(frozen=True, kw_only=True)
class Checked:
    """The examples without those that were dropped, in their order, and everything that was found on the way.

    `chosen` are those of them that would be trained on.
    """

    examples: tuple[Example, ...]
    chosen: tuple[Example, ...]
    examined: tuple[Example, ...]
    findings: tuple[Finding, ...]
    losses: dict[Example, float | None] | None
    config: DatasetConfig

    def report(self, kept: Sequence[Example], *, scored_by: str | None = None) -> QualityReport:
        """Return the report on a dataset that trains on `kept`: some of the examples, or what a person made of them."""
        findings = [*self.findings]
        if self.config.on_imbalance != "ignore":
            findings += find_imbalance(kept, config=self.config)
        return make_report(self.examined, kept, findings, actions(self.config), losses=self.losses, scored_by=scored_by)


def check_examples(
    examples: Sequence[Example],
    held_out: Sequence[Example],
    *,
    held_out_transcripts: frozenset[str],
    config: DatasetConfig,
    choose: Choose,
    scorer: Scorer | None = None,
) -> Checked:
    """Check training examples against one another and the held-out replies, and choose among what is left.

    With a `scorer`, those chosen are checked against the bare base, since to score everything would take a time that
    grows with all that somebody has ever said; where some are dropped for it, the choice is made again among all that
    is left. An example that is dropped for one thing is not counted for a later one: leaks come first, since they spoil
    the measurement, then duplicates, length, platitudes.
    """
    found: list[Finding] = []
    left = list(range(len(examples)))

    def apply(problem_findings: Sequence[Finding]) -> None:
        """Record findings about `left`, and take away what they drop."""
        dropped = set()
        for finding in problem_findings:
            assert finding.index is not None
            index = left[finding.index]
            action = actions(config)[finding.problem]
            if action != "ignore":
                found.append(_at(finding, index))
            if action == "drop":
                dropped.add(index)
        left[:] = [index for index in left if index not in dropped]

    def current() -> list[Example]:
        return [examples[index] for index in left]

    leaks = find_leaks(current(), held_out, held_out_transcripts=held_out_transcripts, config=config)
    apply([*leaks])
    apply([*find_duplicates(current(), config=config)])
    apply([*find_short(current(), config=config)])
    chosen = [*choose(current())]
    losses: dict[Example, float | None] | None = None
    if scorer is not None and config.on_platitude != "ignore":
        losses = {}
        while unscored := [example for example in chosen if example not in losses]:
            fresh = dict(zip(unscored, scorer(unscored), strict=True))
            losses |= fresh
            apply([*find_platitudes(current(), [fresh.get(example) for example in current()], config=config)])
            chosen = [*choose(current())]
    return Checked(
        examples=tuple(current()),
        chosen=tuple(chosen),
        examined=tuple(examples),
        findings=tuple(found),
        losses=losses,
        config=config,
    )


def actions(config: DatasetConfig) -> dict[Problem, Action]:
    """Return what the configuration does about each problem."""
    return {
        "duplicate": config.on_duplicate,
        "near_duplicate": config.on_duplicate,
        "leak": config.on_leak,
        "platitude": config.on_platitude,
        "too_short": config.on_length,
        "imbalance": config.on_imbalance,
    }


def _at(finding: Finding, index: int) -> Finding:
    return Finding(problem=finding.problem, index=index, value=finding.value, other=finding.other, note=finding.note)
