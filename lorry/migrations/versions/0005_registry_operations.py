"""Tables of the room that writes them: registry; sealing, lifecycle, policy and the engine directory."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005_registry_operations"
down_revision = "0004_api_keys"
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True)
_NOW = sa.text("now()")
_GUARD_SEAL = """
create function adapter_version_seal_guard() returns trigger language plpgsql as $$
begin
    if old.state not in ('pending', 'uploaded') and new.state <> 'erased'
       and (new.data_key_id, new.sealed_bytes, new.signature::text, new.validation::text)
           is distinct from (old.data_key_id, old.sealed_bytes, old.signature::text, old.validation::text) then
        raise exception 'the seal of version % is immutable', old.version_id using errcode = 'check_violation';
    end if;
    if new.state <> old.state then  -- stamped by the database's clock, whoever asked
        new.suspended_at = case when new.state = 'suspended' then now() end;
        if new.state = 'retired' then new.retired_at = now(); end if;
        if new.state = 'erased' then new.erased_at = now(); end if;
    end if;
    return new;
end $$
"""


def upgrade() -> None:
    _add_sealing()
    _add_lifecycle()
    _add_listing()
    _add_engines()
    _add_requests()


def _add_sealing() -> None:
    op.create_table(
        "data_key",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("wrapped", sa.LargeBinary),
        sa.Column("master_key_id", sa.Text),
        sa.Column("created_at", _MOMENT, server_default=_NOW, nullable=False),
        sa.Column("rewrapped_at", _MOMENT),
        sa.Column("destroyed_at", _MOMENT),
        sa.CheckConstraint("id ~ '^k[0-9a-f]{32}$'", name="ck_data_key_id"),
        sa.CheckConstraint(
            "(wrapped is null) = (destroyed_at is not null) and (wrapped is null) = (master_key_id is null)",
            name="ck_data_key_wrapped",
        ),
    )
    op.create_index(
        "uq_data_key_owner",
        "data_key",
        ["tenant", "user_id"],
        unique=True,
        postgresql_where=sa.text("destroyed_at is null"),
    )
    op.create_index("ix_data_key_master_key_id", "data_key", ["master_key_id", "id"])
    op.add_column("adapter_version", sa.Column("data_key_id", sa.Text, sa.ForeignKey("data_key.id")))
    op.add_column("adapter_version", sa.Column("sealed_bytes", sa.BigInteger))
    op.add_column("adapter_version", sa.Column("signature", sa.JSON))
    op.add_column("adapter_version", sa.Column("validation", sa.JSON))


def _add_lifecycle() -> None:
    op.execute(_GUARD_SEAL)
    op.execute(
        "create trigger adapter_version_seal_guard before update on adapter_version "
        "for each row execute function adapter_version_seal_guard()"
    )
    # Content that was retired or erased may be published again, as a new version.
    op.drop_index("uq_adapter_version_content", "adapter_version")
    op.create_index(
        "uq_adapter_version_content",
        "adapter_version",
        ["adapter_id", "content_digest"],
        unique=True,
        postgresql_where=sa.text("state in ('pending', 'uploaded', 'ready', 'suspended')"),
    )
    # What was published before sealing cannot be opened as sealed content: it has to be published again.
    op.execute(
        "update adapter_version set state = 'retired', reason = 'published before sealing' where state = 'ready'"
    )
    for name in ("retired_at", "removed_at", "erased_at", "suspended_at"):
        op.add_column("adapter_version", sa.Column(name, _MOMENT))
    op.execute("update adapter_version set retired_at = now() where state = 'retired'")
    op.create_check_constraint(
        "ck_adapter_version_retired_at", "adapter_version", "state <> 'retired' or retired_at is not null"
    )
    op.create_index(
        "ix_adapter_version_unfinished",
        "adapter_version",
        ["created_at"],
        postgresql_where=sa.text("state in ('pending', 'uploaded')"),
    )
    op.create_index(
        "ix_adapter_version_retired",
        "adapter_version",
        ["retired_at"],
        postgresql_where=sa.text("state = 'retired' and removed_at is null"),
    )
    op.create_index(
        "ix_adapter_version_unremoved",
        "adapter_version",
        ["version_id"],
        postgresql_where=sa.text("state in ('erased', 'rejected') and removed_at is null"),
    )
    op.create_index("ix_adapter_version_base_id", "adapter_version", ["base_id", "version_id"])
    op.create_table(
        "suspension",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("user_id", sa.Text, primary_key=True),
        sa.Column("adapter", sa.Text, primary_key=True),
        sa.Column("since", _MOMENT, server_default=_NOW, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("why", sa.Text, nullable=False),
    )
    op.create_table(
        "alias_move",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("adapter_id", sa.BigInteger, sa.ForeignKey("adapter.id"), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("version_id", sa.Text, sa.ForeignKey("adapter_version.version_id")),
        sa.Column("before_version_id", sa.Text),
        sa.Column("at", _MOMENT, server_default=_NOW, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("why", sa.Text),
    )
    op.create_index("ix_alias_move_adapter_id", "alias_move", ["adapter_id", "name", "id"])
    op.create_index("ix_alias_version_id", "alias", ["version_id"])
    op.create_table(
        "evaluation_report",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("version_id", sa.Text, sa.ForeignKey("adapter_version.version_id"), nullable=False),
        sa.Column("at", _MOMENT, server_default=_NOW, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("report", sa.JSON, nullable=False),
    )
    op.create_index("ix_evaluation_report_version_id", "evaluation_report", ["version_id", "id"])
    op.create_table(
        "tenant_policy",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("policy", sa.JSON, nullable=False),
        sa.Column("changed_at", _MOMENT, server_default=_NOW, nullable=False),
    )
    op.create_table(
        "version_transcript",
        sa.Column("transcript_id", sa.Text, primary_key=True),
        sa.Column("version_id", sa.Text, sa.ForeignKey("adapter_version.version_id"), primary_key=True),
    )
    op.create_index("ix_version_transcript_version_id", "version_transcript", ["version_id"])
    op.add_column("audit", sa.Column("tenant", sa.Text))
    op.add_column("audit", sa.Column("subject", sa.Text))
    op.create_index("ix_audit_version_id", "audit", ["version_id", "id"])
    op.create_index("ix_audit_subject", "audit", ["subject", "id"], postgresql_where=sa.text("subject is not null"))


def _add_listing() -> None:
    # Names are ASCII and pages go by code point, whatever the database's own order is; a prefix is a range of it.
    op.create_index(
        "ix_adapter_names", "adapter", ["tenant", sa.text('user_id collate "C"'), sa.text('name collate "C"')]
    )
    op.create_index("ix_adapter_created_at", "adapter", ["tenant", "created_at", "id"])
    # What nearly every row has needs no index; what few have must be found among millions.
    op.create_index("ix_alias_name", "alias", ["name", "adapter_id"], postgresql_where=sa.text("name <> 'live'"))
    op.create_index(
        "ix_adapter_version_state",
        "adapter_version",
        ["state", "adapter_id"],
        postgresql_where=sa.text("state <> 'ready'"),
    )


def _add_engines() -> None:
    op.create_table(
        "engine",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("base_id", sa.Text, sa.ForeignKey("base_model.id")),
        sa.Column("address", sa.Text),
        sa.Column("facts", sa.JSON, nullable=False),
        sa.Column("incarnation", sa.Text, nullable=False),
        sa.Column("holdings_digest", sa.Text),
        sa.Column("registered_at", _MOMENT, server_default=_NOW, nullable=False),
        sa.Column("last_seen_at", _MOMENT, server_default=_NOW, nullable=False),
        sa.Column("left_at", _MOMENT),
    )
    op.create_index("ix_engine_last_seen_at", "engine", ["last_seen_at"])
    op.create_table(
        "engine_holding",
        sa.Column("engine_id", sa.Text, sa.ForeignKey("engine.id", ondelete="cascade"), primary_key=True),
        sa.Column("version_id", sa.Text, primary_key=True),
        sa.Column("tier", sa.Text, nullable=False),
        sa.Column("leases", sa.Integer, server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint("tier in ('disk', 'host', 'device')", name="ck_engine_holding_tier"),
    )
    op.create_index("ix_engine_holding_version_id", "engine_holding", ["version_id"])


def _add_requests() -> None:
    op.create_table(
        "idempotent_request",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("status", sa.Integer),
        sa.Column("answer", sa.LargeBinary),
        sa.Column("at", _MOMENT, server_default=_NOW, nullable=False),
    )
    op.create_index("ix_idempotent_request_at", "idempotent_request", ["at"])


def downgrade() -> None:
    op.execute("drop trigger adapter_version_seal_guard on adapter_version")
    op.execute("drop function adapter_version_seal_guard()")
    op.drop_index("uq_adapter_version_content", "adapter_version")
    op.create_index(
        "uq_adapter_version_content",
        "adapter_version",
        ["adapter_id", "content_digest"],
        unique=True,
        postgresql_where=sa.text("state <> 'rejected'"),
    )
    for table in (
        "idempotent_request",
        "engine_holding",
        "engine",
        "version_transcript",
        "tenant_policy",
        "evaluation_report",
        "alias_move",
        "suspension",
    ):
        op.drop_table(table)
    op.drop_index("ix_adapter_names", "adapter")
    op.drop_index("ix_adapter_created_at", "adapter")
    op.drop_index("ix_alias_name", "alias")
    op.drop_index("ix_adapter_version_state", "adapter_version")
    op.drop_index("ix_alias_version_id", "alias")
    op.drop_index("ix_audit_version_id", "audit")
    op.drop_index("ix_audit_subject", "audit")
    for name in ("subject", "tenant"):
        op.drop_column("audit", name)
    for name in ("base_id", "retired", "unfinished", "unremoved"):
        op.drop_index(f"ix_adapter_version_{name}", "adapter_version")
    op.drop_constraint("ck_adapter_version_retired_at", "adapter_version")
    for name in (
        "suspended_at",
        "erased_at",
        "removed_at",
        "retired_at",
        "validation",
        "signature",
        "sealed_bytes",
        "data_key_id",
    ):
        op.drop_column("adapter_version", name)
    op.drop_table("data_key")
