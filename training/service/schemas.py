"""What the training service reads and answers. Values are checked here once; inside, frozen dataclasses are used."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from kit.names import Name
from training.base_models import DEFAULT_BASE
from training.jobs.campaigns.campaigns import Campaign
from training.jobs.dispatch import Quota
from training.jobs.job import DEFAULT_ADAPTER, Event, Job
from training.jobs.staleness import Rules
from training.jobs.states import Phase, State, Trigger, Wish
from training.jobs.triggers.stale_users import Staleness

Settings = dict[str, str | int | float | bool]
_MAX_SETTINGS = 100


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TrainingRequestBody(_Strict):
    """What somebody wants trained."""

    base: str = Field(DEFAULT_BASE, min_length=1, max_length=500, description="a known base model or a directory")
    adapter: Name = DEFAULT_ADAPTER
    settings: Settings = Field(
        default_factory=dict,
        max_length=_MAX_SETTINGS,
        description="settings of the training by key, such as `steps` or `dataset.writer`",
    )
    priority: int = Field(0, ge=-1000, le=1000, description="higher ones come first")
    why: str = Field("", max_length=500, description="kept with the job")
    review: bool = Field(
        False, description="wait, once the questions are written, until somebody has reviewed them and resumes the job"
    )


class JobView(_Strict):
    """One training job."""

    id: str
    tenant: str
    user_id: str
    adapter: str
    base: str
    settings: dict[str, JsonValue]
    trigger: Trigger
    why: str
    campaign_id: str | None
    review: bool = Field(description="whether it waits for a review before it is trained")
    priority: int
    state: State
    phase: Phase
    wish: Wish = Field(description="what was asked of it and not granted yet")
    attempts: int = Field(description="failures in a row that may pass")
    crashes: int = Field(description="workers that died in its current stage")
    worker_id: str | None
    progress: dict[str, JsonValue] | None = Field(
        description="stage, done, total, share of the job; eta_seconds to its end, null until every stage's time is"
        " known, and stage_eta_seconds to its stage's"
    )
    error: dict[str, JsonValue] | None = Field(description="code, message, field, stage")
    outcome: dict[str, JsonValue] | None = Field(
        description="version, version_id, live, the gate's reasons, and those of them that failed"
    )
    submitted_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    not_before: datetime | None
    updated_at: datetime

    @classmethod
    def of(cls, job: Job) -> JobView:
        """Return the view of a job."""
        return cls(**asdict(job))


class JobDetails(JobView):
    """One training job, and what its dataset is like."""

    dataset: dict[str, JsonValue] | None = Field(
        description="digest, counts of examples, how often what kind was redacted, and quality: how often what was"
        " found in the examples, and what was done about it; null until it is built"
    )

    @classmethod
    def of(cls, job: Job, dataset: dict[str, Any] | None = None) -> JobDetails:
        """Return the view of a job with what is kept of its dataset."""
        return cls(**asdict(job), dataset=dataset)


class JobPage(_Strict):
    """Jobs, the latest first; pass `next_before` as `before` for the next page; null on the last."""

    jobs: tuple[JobView, ...]
    next_before: str | None


class EventView(_Strict):
    """Something that happened to a job."""

    id: int
    at: datetime
    kind: str
    detail: dict[str, JsonValue]

    @classmethod
    def of(cls, event: Event) -> EventView:
        """Return the view of an event."""
        return cls(**asdict(event))


class EventList(_Strict):
    """Events in order; pass the last id as `after` for what comes next."""

    events: tuple[EventView, ...]


class QuotaView(_Strict):
    """What a tenant may use; null = as much as there is."""

    max_running: int | None = Field(None, ge=0, lt=1 << 31, description="jobs that workers hold at once")
    max_daily: int | None = Field(None, ge=0, lt=1 << 31, description="jobs submitted in 24 hours")
    max_monthly_dollars: float | None = Field(
        None, ge=0, lt=1e9, allow_inf_nan=False, description="paid to question writers in 30 days"
    )

    @classmethod
    def of(cls, quota: Quota) -> QuotaView:
        """Return the view of a quota."""
        return cls(**asdict(quota))

    def to_quota(self) -> Quota:
        """Return the quota."""
        return Quota(**self.model_dump())


class RulesView(_Strict):
    """When a tenant's users are trained without anybody asking; null = never for that reason."""

    enabled: bool = False
    min_words: int = Field(300, ge=0, lt=1 << 31, description="own words that nobody is trained below")
    new_words: int | None = Field(1000, ge=0, lt=1 << 31, description="own words since the training")
    new_share: float = Field(0.2, ge=0, le=1000, allow_inf_nan=False, description="of the words that were trained on")
    max_age_days: float | None = Field(30.0, ge=0, le=36_500, allow_inf_nan=False)
    schedule: str | None = Field(None, max_length=100, description="a cron line of five fields, UTC")
    base_change: bool = Field(False, description="train when the live version is of another base than the workers'")
    priority: int = Field(-10, ge=-1000, le=1000)
    settings: Settings = Field(
        default_factory=dict, max_length=_MAX_SETTINGS, description="of these trainings, such as `start`"
    )

    @classmethod
    def of(cls, rules: Rules) -> RulesView:
        """Return the view of rules."""
        return cls(**asdict(rules))

    def to_rules(self) -> Rules:
        """Return the rules."""
        return Rules(**self.model_dump())


class StalenessView(_Strict):
    """One user: what is stored, what was trained, and whether and why a training is due."""

    user_id: str
    words: int
    trained_words: int | None
    trained_at: datetime | None
    base: str | None
    trigger: Trigger | None
    reason: str | None
    active_job: str | None

    @classmethod
    def of(cls, found: Staleness) -> StalenessView:
        """Return the view of one user."""
        return cls(
            user_id=found.user,
            words=found.words,
            trained_words=found.trained_words,
            trained_at=found.trained_at,
            base=found.base,
            trigger=found.due.trigger if found.due else None,
            reason=found.due.reason if found.due else None,
            active_job=found.active_job,
        )


class StalenessList(_Strict):
    """Every user of a tenant who has transcripts, by name."""

    users: tuple[StalenessView, ...]


class CostView(_Strict):
    """One sum; `is_estimate` sums were reckoned before anything was spent."""

    of: str
    is_estimate: bool
    input_tokens: float
    output_tokens: float
    trained_tokens: float
    dollars: float
    device_seconds: float


class CostList(_Strict):
    """Sums by tenant, user, job or stage."""

    costs: tuple[CostView, ...]


class WorkerView(_Strict):
    """One worker: alive, lapsed (silent for longer than its lease) or left."""

    worker_id: str
    host: str
    state: str
    prepare_slots: int
    train_slots: int
    jobs: int
    started_at: datetime
    heard_at: datetime


class WorkerList(_Strict):
    """Every worker, by id."""

    workers: tuple[WorkerView, ...]


class CampaignBody(_Strict):
    """Who is to be trained again, for which base, how fast."""

    base: str = Field(min_length=1, max_length=500, description="a registered base model, by name or directory")
    per_hour: float = Field(60.0, gt=0, le=100_000, allow_inf_nan=False, description="trainings begun in an hour")
    priority: int = Field(-100, ge=-1000, le=1000)
    settings: Settings = Field(default_factory=dict, max_length=_MAX_SETTINGS)
    users: tuple[Name, ...] | None = Field(None, max_length=100_000, description="null = everybody with transcripts")


class CampaignView(_Strict):
    """One campaign; `counts` by what became of its users: waiting, skipped, or their job's state."""

    id: str
    tenant: str
    base: str
    settings: dict[str, JsonValue]
    state: str
    per_hour: float
    priority: int
    created_at: datetime
    ended_at: datetime | None
    counts: dict[str, int]
    users: int
    done: int
    eta_seconds: float | None = Field(description="how long the rate alone makes the rest last")

    @classmethod
    def of(cls, campaign: Campaign) -> CampaignView:
        """Return the view of a campaign."""
        more: dict[str, Any] = {"users": campaign.users, "done": campaign.done, "eta_seconds": campaign.eta_seconds}
        return cls(**asdict(campaign), **more)


class CampaignList(_Strict):
    """Campaigns, the latest first."""

    campaigns: tuple[CampaignView, ...]
