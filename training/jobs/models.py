"""The tables of this room: jobs and what they did, workers, quotas, rules, costs, campaigns.

Only four hold content, until what is left of its job is removed: `training_writing` and `training_answer` what a
question writer wrote, `training_finished` and `training_finished_part` the weights that were trained.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, DateTime, ForeignKey, Identity, Index, LargeBinary, Text, func
from sqlalchemy import text as sql
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from kit.database import Base
from training.jobs.states import Phase, State, Trigger, Wish

_MOMENT = DateTime(timezone=True)
_NOW = func.now()
ACTIVE_SQL = "state in ('queued', 'starting', 'running', 'paused')"
_json = JSONB(none_as_null=True)


class JobRow(Base):
    """One training of one user's adapter; `run` counts how often it was handed to a worker. One a user is active.

    `publishing` is the digest of the content that it gives the registry; of a canceled job's that is taken back.
    """

    __tablename__ = "training_job"

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    tenant: Mapped[str] = mapped_column(Text)
    user_id: Mapped[str] = mapped_column(Text)
    adapter: Mapped[str] = mapped_column(Text)
    base: Mapped[str] = mapped_column(Text)
    request: Mapped[dict[str, Any]] = mapped_column(_json)
    trigger: Mapped[Trigger] = mapped_column(Text)
    campaign_id: Mapped[str | None] = mapped_column(ForeignKey("training_campaign.id", ondelete="SET NULL"))
    priority: Mapped[int] = mapped_column(server_default="0")
    state: Mapped[State] = mapped_column(Text)
    phase: Mapped[Phase] = mapped_column(Text)
    wish: Mapped[Wish] = mapped_column(Text, server_default="none")
    run: Mapped[int] = mapped_column(server_default="0")
    attempts: Mapped[int] = mapped_column(server_default="0")
    crashes: Mapped[int] = mapped_column(server_default="0")
    not_before: Mapped[datetime | None] = mapped_column(_MOMENT)
    worker_id: Mapped[str | None] = mapped_column(Text)
    progress: Mapped[dict[str, Any] | None] = mapped_column(_json)
    error: Mapped[dict[str, Any] | None] = mapped_column(_json)
    outcome: Mapped[dict[str, Any] | None] = mapped_column(_json)
    publishing: Mapped[str | None] = mapped_column(Text)
    submitted_at: Mapped[datetime] = mapped_column(_MOMENT, server_default=_NOW)
    started_at: Mapped[datetime | None] = mapped_column(_MOMENT)
    ended_at: Mapped[datetime | None] = mapped_column(_MOMENT)
    updated_at: Mapped[datetime] = mapped_column(_MOMENT, server_default=_NOW)

    __table_args__ = (
        CheckConstraint("id ~ '^j[0-9a-f]{32}$'", name="id"),
        CheckConstraint("(ended_at is null) = (" + ACTIVE_SQL + ")", name="ended"),
        Index("uq_training_job_active", "tenant", "user_id", unique=True, postgresql_where=sql(ACTIVE_SQL)),
        Index("ix_training_job_listing", "tenant", "submitted_at", "id"),
        Index("ix_training_job_user", "tenant", "user_id", "submitted_at"),
        Index("ix_training_job_waiting", "state", "submitted_at", postgresql_where=sql(ACTIVE_SQL)),
        Index("ix_training_job_failed", "ended_at", postgresql_where=sql("state = 'failed'")),
        Index(
            "ix_training_job_publishing", "id", postgresql_where=sql("state = 'canceled' and publishing is not null")
        ),
    )


class StageRow(Base):
    """A stage that a job has finished: its small result, never content, and how long it took."""

    __tablename__ = "training_stage"

    job_id: Mapped[str] = mapped_column(ForeignKey("training_job.id", ondelete="CASCADE"), primary_key=True)
    stage: Mapped[str] = mapped_column(Text, primary_key=True)
    result: Mapped[dict[str, Any]] = mapped_column(_json)
    seconds: Mapped[float]
    finished_at: Mapped[datetime] = mapped_column(_MOMENT, server_default=_NOW)

    __table_args__ = (Index("ix_training_stage_recent", "stage", "finished_at"),)


class WritingRow(Base):
    """What a remote question writer was asked and has answered: paid for, so kept until the job has ended.

    What is `given_up` is not gone on with: its service deletes what it keeps, and then the job's writer begins anew.
    """

    __tablename__ = "training_writing"

    job_id: Mapped[str] = mapped_column(ForeignKey("training_job.id", ondelete="CASCADE"), primary_key=True)
    state: Mapped[dict[str, Any] | None] = mapped_column(_json)
    written: Mapped[dict[str, Any] | None] = mapped_column(_json)
    given_up: Mapped[bool] = mapped_column(server_default=sql("false"))


class AnswerRow(Base):
    """What a question writer's service has answered to one request, as it came: one row each, written once.

    It goes with its writing, and before that when everything was collected.
    """

    __tablename__ = "training_answer"

    job_id: Mapped[str] = mapped_column(ForeignKey("training_writing.job_id", ondelete="CASCADE"), primary_key=True)
    request: Mapped[str] = mapped_column(Text, primary_key=True)
    answer: Mapped[bytes] = mapped_column(LargeBinary)


class FinishedRow(Base):
    """What a job has trained, until it is published: `files` are SHA-256 by name, null until every part is there."""

    __tablename__ = "training_finished"

    job_id: Mapped[str] = mapped_column(ForeignKey("training_job.id", ondelete="CASCADE"), primary_key=True)
    files: Mapped[dict[str, str] | None] = mapped_column(_json)


class FinishedPartRow(Base):
    """At most a MiB of a file of what a job has trained; `number` counts from 0 within a file."""

    __tablename__ = "training_finished_part"

    job_id: Mapped[str] = mapped_column(ForeignKey("training_finished.job_id", ondelete="CASCADE"), primary_key=True)
    file: Mapped[str] = mapped_column(Text, primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    data: Mapped[bytes] = mapped_column(LargeBinary)


class EventRow(Base):
    """Something that happened to a job; ids grow with time within a job."""

    __tablename__ = "training_event"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("training_job.id", ondelete="CASCADE"))
    at: Mapped[datetime] = mapped_column(_MOMENT, server_default=func.clock_timestamp())
    kind: Mapped[str] = mapped_column(Text)
    detail: Mapped[dict[str, Any]] = mapped_column(_json)

    __table_args__ = (Index("ix_training_event_job", "job_id", "id"),)


class WorkerRow(Base):
    """One worker, by its stable id; `boot` names its process: pid and start."""

    __tablename__ = "training_worker"

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    boot: Mapped[str] = mapped_column(Text)
    host: Mapped[str] = mapped_column(Text)
    prepare_slots: Mapped[int]
    train_slots: Mapped[int]
    lease_seconds: Mapped[float]
    started_at: Mapped[datetime] = mapped_column(_MOMENT, server_default=_NOW)
    heard_at: Mapped[datetime] = mapped_column(_MOMENT, server_default=_NOW)
    left_at: Mapped[datetime | None] = mapped_column(_MOMENT)


class QuotaRow(Base):
    """What one tenant may use; null = without limit."""

    __tablename__ = "training_quota"

    tenant: Mapped[str] = mapped_column(Text, primary_key=True)
    max_running: Mapped[int | None]
    max_daily: Mapped[int | None]
    max_monthly_dollars: Mapped[float | None]


class RulesRow(Base):
    """When a tenant's users are trained without anybody asking."""

    __tablename__ = "training_rules"

    tenant: Mapped[str] = mapped_column(Text, primary_key=True)
    rules: Mapped[dict[str, Any]] = mapped_column(_json)
    checked_at: Mapped[datetime | None] = mapped_column(_MOMENT)


class TrainedRow(Base):
    """What a user's adapter was last trained on, whether the gate let it pass or not."""

    __tablename__ = "training_trained"

    tenant: Mapped[str] = mapped_column(Text, primary_key=True)
    user_id: Mapped[str] = mapped_column(Text, primary_key=True)
    adapter: Mapped[str] = mapped_column(Text, primary_key=True)
    words: Mapped[int]
    base: Mapped[str] = mapped_column(Text)
    job_id: Mapped[str] = mapped_column(Text)
    version_id: Mapped[str] = mapped_column(Text)
    trained_at: Mapped[datetime] = mapped_column(_MOMENT)


class CostRow(Base):
    """What one stage of a job cost, or of what a command did without a job; `is_estimate` rows were written before.

    `earlier_run` is 0 for the run that goes on, and the run's number when the job was retried from its beginning since.
    Without a job, `job_id` is a bill's, and an estimate of what is over has another number, too.
    """

    __tablename__ = "training_cost"

    job_id: Mapped[str] = mapped_column(Text, primary_key=True)
    kind: Mapped[str] = mapped_column(Text, primary_key=True)
    is_estimate: Mapped[bool] = mapped_column(primary_key=True)
    earlier_run: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, server_default="0")
    tenant: Mapped[str] = mapped_column(Text)
    user_id: Mapped[str] = mapped_column(Text)
    input_tokens: Mapped[int] = mapped_column(BigInteger, server_default="0")
    output_tokens: Mapped[int] = mapped_column(BigInteger, server_default="0")
    trained_tokens: Mapped[int] = mapped_column(BigInteger, server_default="0")
    dollars: Mapped[float] = mapped_column(server_default="0")
    device_seconds: Mapped[float] = mapped_column(server_default="0")
    at: Mapped[datetime] = mapped_column(_MOMENT, server_default=_NOW)

    __table_args__ = (Index("ix_training_cost_tenant", "tenant", "at"),)


class CampaignRow(Base):
    """Every user of a tenant trained again, at most so many an hour."""

    __tablename__ = "training_campaign"

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    tenant: Mapped[str] = mapped_column(Text)
    base: Mapped[str] = mapped_column(Text)
    request: Mapped[dict[str, Any]] = mapped_column(_json)
    state: Mapped[str] = mapped_column(Text, server_default="running")
    per_hour: Mapped[float]
    priority: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(_MOMENT, server_default=_NOW)
    ended_at: Mapped[datetime | None] = mapped_column(_MOMENT)

    __table_args__ = (
        CheckConstraint("id ~ '^c[0-9a-f]{32}$'", name="id"),
        CheckConstraint("state in ('running', 'paused', 'done', 'aborted')", name="state"),
        CheckConstraint("per_hour > 0", name="per_hour"),
    )


class CampaignUserRow(Base):
    """One user of a campaign; `job_id` null = their turn has not come."""

    __tablename__ = "training_campaign_user"

    campaign_id: Mapped[str] = mapped_column(ForeignKey("training_campaign.id", ondelete="CASCADE"), primary_key=True)
    user_id: Mapped[str] = mapped_column(Text, primary_key=True)
    job_id: Mapped[str | None] = mapped_column(Text)
    submitted_at: Mapped[datetime | None] = mapped_column(_MOMENT)
    skipped: Mapped[str | None] = mapped_column(Text)
