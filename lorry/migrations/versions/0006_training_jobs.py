"""Tables of the room that writes them: training jobs, their workers, quotas, rules, costs, campaigns."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0006_training_jobs"
down_revision = "0005_registry_operations"
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True)
_NOW = sa.text("now()")
_ACTIVE = "state in ('queued', 'starting', 'running', 'paused')"


def upgrade() -> None:
    _add_campaigns()
    _add_jobs()
    _add_remains()
    _add_tenancy()


def _add_campaigns() -> None:
    op.create_table(
        "training_campaign",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("base", sa.Text, nullable=False),
        sa.Column("request", JSONB, nullable=False),
        sa.Column("state", sa.Text, server_default="running", nullable=False),
        sa.Column("per_hour", sa.Float, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("created_at", _MOMENT, server_default=_NOW, nullable=False),
        sa.Column("ended_at", _MOMENT),
        sa.CheckConstraint("id ~ '^c[0-9a-f]{32}$'", name="ck_training_campaign_id"),
        sa.CheckConstraint("state in ('running', 'paused', 'done', 'aborted')", name="ck_training_campaign_state"),
        sa.CheckConstraint("per_hour > 0", name="ck_training_campaign_per_hour"),
    )
    op.create_table(
        "training_campaign_user",
        sa.Column("campaign_id", sa.Text, sa.ForeignKey("training_campaign.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("user_id", sa.Text, primary_key=True),
        sa.Column("job_id", sa.Text),
        sa.Column("submitted_at", _MOMENT),
        sa.Column("skipped", sa.Text),
    )


def _add_jobs() -> None:
    op.create_table(
        "training_job",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("adapter", sa.Text, nullable=False),
        sa.Column("base", sa.Text, nullable=False),
        sa.Column("request", JSONB, nullable=False),
        sa.Column("trigger", sa.Text, nullable=False),
        sa.Column("campaign_id", sa.Text, sa.ForeignKey("training_campaign.id", ondelete="SET NULL")),
        sa.Column("priority", sa.Integer, server_default="0", nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("phase", sa.Text, nullable=False),
        sa.Column("wish", sa.Text, server_default="none", nullable=False),
        sa.Column("run", sa.Integer, server_default="0", nullable=False),
        sa.Column("attempts", sa.Integer, server_default="0", nullable=False),
        sa.Column("crashes", sa.Integer, server_default="0", nullable=False),
        sa.Column("not_before", _MOMENT),
        sa.Column("worker_id", sa.Text),
        sa.Column("progress", JSONB),
        sa.Column("error", JSONB),
        sa.Column("outcome", JSONB),
        sa.Column("submitted_at", _MOMENT, server_default=_NOW, nullable=False),
        sa.Column("started_at", _MOMENT),
        sa.Column("ended_at", _MOMENT),
        sa.Column("updated_at", _MOMENT, server_default=_NOW, nullable=False),
        sa.CheckConstraint("id ~ '^j[0-9a-f]{32}$'", name="ck_training_job_id"),
        sa.CheckConstraint(f"(ended_at is null) = ({_ACTIVE})", name="ck_training_job_ended"),
    )
    op.create_index(
        "uq_training_job_active",
        "training_job",
        ["tenant", "user_id"],
        unique=True,
        postgresql_where=sa.text(_ACTIVE),
    )
    op.create_index("ix_training_job_listing", "training_job", ["tenant", "submitted_at", "id"])
    op.create_index("ix_training_job_user", "training_job", ["tenant", "user_id", "submitted_at"])
    op.create_index(
        "ix_training_job_waiting", "training_job", ["state", "submitted_at"], postgresql_where=sa.text(_ACTIVE)
    )


def _add_remains() -> None:
    job = "training_job.id"
    op.create_table(
        "training_stage",
        sa.Column("job_id", sa.Text, sa.ForeignKey(job, ondelete="CASCADE"), primary_key=True),
        sa.Column("stage", sa.Text, primary_key=True),
        sa.Column("result", JSONB, nullable=False),
        sa.Column("seconds", sa.Float, nullable=False),
        sa.Column("finished_at", _MOMENT, server_default=_NOW, nullable=False),
    )
    op.create_index("ix_training_stage_recent", "training_stage", ["stage", "finished_at"])
    op.create_table(
        "training_writing",
        sa.Column("job_id", sa.Text, sa.ForeignKey(job, ondelete="CASCADE"), primary_key=True),
        sa.Column("state", JSONB),
        sa.Column("written", JSONB),
    )
    op.create_table(
        "training_event",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("job_id", sa.Text, sa.ForeignKey(job, ondelete="CASCADE"), nullable=False),
        sa.Column("at", _MOMENT, server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("detail", JSONB, nullable=False),
    )
    op.create_index("ix_training_event_job", "training_event", ["job_id", "id"])
    op.create_table(
        "training_worker",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("boot", sa.Text, nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("prepare_slots", sa.Integer, nullable=False),
        sa.Column("train_slots", sa.Integer, nullable=False),
        sa.Column("lease_seconds", sa.Float, nullable=False),
        sa.Column("started_at", _MOMENT, server_default=_NOW, nullable=False),
        sa.Column("heard_at", _MOMENT, server_default=_NOW, nullable=False),
        sa.Column("left_at", _MOMENT),
    )


def _add_tenancy() -> None:
    op.create_table(
        "training_quota",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("max_running", sa.Integer),
        sa.Column("max_daily", sa.Integer),
        sa.Column("max_monthly_dollars", sa.Float),
    )
    op.create_table(
        "training_rules",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("rules", JSONB, nullable=False),
        sa.Column("checked_at", _MOMENT),
    )
    op.create_table(
        "training_trained",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("user_id", sa.Text, primary_key=True),
        sa.Column("adapter", sa.Text, primary_key=True),
        sa.Column("words", sa.Integer, nullable=False),
        sa.Column("base", sa.Text, nullable=False),
        sa.Column("job_id", sa.Text, nullable=False),
        sa.Column("version_id", sa.Text, nullable=False),
        sa.Column("trained_at", _MOMENT, nullable=False),
    )
    op.create_table(
        "training_cost",
        sa.Column("job_id", sa.Text, primary_key=True),
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("is_estimate", sa.Boolean, primary_key=True),
        sa.Column("earlier_run", sa.Integer, primary_key=True, autoincrement=False, server_default="0"),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("input_tokens", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("output_tokens", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("trained_tokens", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("dollars", sa.Float, server_default="0", nullable=False),
        sa.Column("device_seconds", sa.Float, server_default="0", nullable=False),
        sa.Column("at", _MOMENT, server_default=_NOW, nullable=False),
    )
    op.create_index("ix_training_cost_tenant", "training_cost", ["tenant", "at"])


def downgrade() -> None:
    for table in ("cost", "trained", "rules", "quota", "worker", "event", "writing", "stage", "job"):
        op.drop_table(f"training_{table}")
    op.drop_table("training_campaign_user")
    op.drop_table("training_campaign")
