"""What travels of trainings: what the training service says of a job, but for what is no caller's business."""

from __future__ import annotations

from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, FiniteFloat, JsonValue, field_validator

from kit.names import Name
from registry.manifest import DEFAULT_ADAPTER

TUNABLE = frozenset(
    {"steps", "min_steps", "rank", "alpha", "learning_rate", "seed", "dataset.seed", "dataset.max_examples"}
)
"""Settings of a training that a caller may choose: none names a file, a service or somebody's money."""


Number = int | FiniteFloat


class TrainingBody(BaseModel):
    """What a caller wants trained."""

    model_config = ConfigDict(extra="forbid")

    adapter: Name = DEFAULT_ADAPTER
    settings: dict[str, Number] = Field(
        default_factory=dict, description=f"any of {', '.join(sorted(TUNABLE))}; the service says what fits"
    )
    why: str = Field("", max_length=500, description="kept with the job")

    @field_validator("settings")
    @classmethod
    def _tunable(cls, value: dict[str, Number]) -> dict[str, Number]:
        for name in value:
            if name not in TUNABLE:
                raise ValueError(f"{name[:64]!r} cannot be set here; {', '.join(sorted(TUNABLE))} can")
        return value


class Training(BaseModel):
    """One training of a user's adapter."""

    model_config = ConfigDict(extra="ignore")

    id: str
    user_id: str
    adapter: str
    state: str = Field(description="queued, starting, running, paused, succeeded, rejected, failed or canceled")
    phase: str
    wish: str = Field(description="what was asked of it and not granted yet")
    why: str
    progress: dict[str, JsonValue] | None = Field(
        description="stage, done, total, share of the job; eta_seconds to its end, null until every stage's time is"
        " known, and stage_eta_seconds to its stage's"
    )
    error: dict[str, JsonValue] | None = Field(description="code, message, field, stage")
    outcome: dict[str, JsonValue] | None = Field(description="version, version_id, live, the gate's reasons")
    submitted_at: AwareDatetime
    started_at: AwareDatetime | None
    ended_at: AwareDatetime | None


class TrainingDetails(Training):
    """One training, and what its dataset is like."""

    dataset: dict[str, JsonValue] | None = Field(
        None,
        description="digest, counts of examples, how often what kind was redacted, and quality: how often what was"
        " found in the examples, and what was done about it; null until it is built",
    )


class TrainingPage(BaseModel):
    """Trainings, the latest first; `next_cursor` is null on the last page."""

    trainings: list[Training]
    next_cursor: str | None


class TrainingEvent(BaseModel):
    """Something that happened to a training."""

    model_config = ConfigDict(extra="ignore")

    id: int
    at: AwareDatetime
    kind: str
    detail: dict[str, Any]


class TrainingEvents(BaseModel):
    """Events in order; pass the last id as `after` for what comes next."""

    events: list[TrainingEvent]
