"""How far a job is and when it will be done. Plain code, no database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from training.jobs.states import STAGES, Phase, Stage

_ORDER = (*STAGES[Phase.PREPARE], *STAGES[Phase.TRAIN])


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Steps done of a stage; `share` of the whole job (0 to 1); `eta_seconds` to its end, None = cannot be told.

    `stage_eta_seconds` are those to the end of the stage, which its own pace tells where no job was before.
    """

    stage: Stage
    done: int
    total: int
    share: float
    eta_seconds: float | None
    stage_eta_seconds: float | None

    def to_json(self) -> dict[str, Any]:
        """Return the form that is stored and shown."""
        return asdict(self)


def measure(
    stage: Stage, *, done: int, total: int, elapsed_seconds: float, usual_seconds: Mapping[Stage, float]
) -> Progress:
    """Return the progress of a job in `stage`, `elapsed_seconds` after that stage began or went on.

    Args:
        stage: the stage that runs.
        done: steps since the stage began or went on.
        total: steps until the stage ends, counted from the same moment; 0 = unknown.
        elapsed_seconds: since that moment.
        usual_seconds: how long each stage took lately in other jobs; a stage without history counts as unknown.
    """
    within = min(done / total, 1.0) if total > 0 else 0.0
    rest = _ORDER[_ORDER.index(stage) + 1 :]
    current = _remaining(stage, done=done, total=total, elapsed=elapsed_seconds, usual=usual_seconds)
    known = current is not None and all(each in usual_seconds for each in rest)
    eta = (current or 0.0) + sum(usual_seconds[each] for each in rest) if known else None
    share = _share(stage, within, usual_seconds)
    return Progress(stage=stage, done=done, total=total, share=share, eta_seconds=eta, stage_eta_seconds=current)


def _remaining(stage: Stage, *, done: int, total: int, elapsed: float, usual: Mapping[Stage, float]) -> float | None:
    if done > 0 and total > 0:
        return elapsed / done * max(total - done, 0)
    return max(usual[stage] - elapsed, 0.0) if stage in usual else None


def _share(stage: Stage, within: float, usual: Mapping[Stage, float]) -> float:
    """Weigh stages by how long they usually take; without any history, all alike."""
    weights = {each: max(usual.get(each, 1.0), 1e-3) for each in _ORDER} if usual else dict.fromkeys(_ORDER, 1.0)
    before = sum(weights[each] for each in _ORDER[: _ORDER.index(stage)])
    return round((before + weights[stage] * within) / sum(weights.values()), 4)
