"""How the examples of a dataset are scored: by the base model, or as they were when it was last asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from training.base_models import identify_base
from training.examples import Example
from training.quality.check import Scorer
from training.quality.report import QualityReport

if TYPE_CHECKING:
    from training.trainer import Trainer

OnScore = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """Who scores, and how; `scored_by` names it: equal names give equal scores.

    `begin` is given what is called between steps, which may raise to end the work.
    """

    scored_by: str
    begin: Callable[[Callable[[], None]], Scorer]


def ask_base(base: Path, *, device: str, max_length: int, on_score: OnScore) -> Scoring:
    """Have the base in `base` asked, which is loaded when there is something to ask.

    Raises:
        BaseModelUnreadable: see `identify_base`.
    """

    def begin(checkpoint: Callable[[], None]) -> Scorer:
        @cache
        def trainer() -> Trainer:
            from training.trainer import Trainer  # torch is imported only by what needs it

            return Trainer(base, device=device)

        def tell(done: int, total: int) -> None:
            checkpoint()
            on_score(done, total)

        def score(examples: Sequence[Example]) -> list[float | None]:
            tell(0, len(examples))  # to load the base takes longer than some scorings
            return trainer().base_losses(examples, max_length=max_length, on_progress=tell)

        return score

    weights = identify_base(base).weights_sha256
    return Scoring(scored_by=f"{weights}, up to {max_length} tokens", begin=begin)


def score_as_before(report: QualityReport | None) -> Scoring | None:
    """Have the same pairs scored as a report says that they were; None where they were not."""
    if report is None or report.scored_by is None:
        return None
    losses = report.losses
    return Scoring(
        scored_by=report.scored_by, begin=lambda _: lambda examples: [losses.get(each.key) for each in examples]
    )
