"""Tables of the room that writes them: registry."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001_registry"
down_revision = None
branch_labels = None
depends_on = None

_STATES = ("pending", "uploaded", "ready", "rejected", "retired", "erased", "suspended")

# Deliberately spelt out here rather than imported: a migration says what was true when it was written.
_GUARD_VERSION = """
create function adapter_version_guard() returns trigger language plpgsql as $$
begin
    if tg_op = 'INSERT' then
        if new.state <> 'pending' then
            raise exception 'a version begins as pending, not as %', new.state using errcode = 'check_violation';
        end if;
        return new;
    end if;
    if tg_op = 'DELETE' then
        if old.state not in ('pending', 'uploaded', 'rejected') then
            raise exception 'a version that was ready is never deleted' using errcode = 'check_violation';
        end if;
        return old;
    end if;
    if (new.version_id, new.adapter_id, new.number, new.base_id, new.content_digest, new.manifest_digest,
        new.size_bytes, new.created_at)
       is distinct from
       (old.version_id, old.adapter_id, old.number, old.base_id, old.content_digest, old.manifest_digest,
        old.size_bytes, old.created_at)
       or (new.manifest::text is distinct from old.manifest::text
           and not (new.state = 'erased' and new.manifest is null))
       or (old.ready_at is not null and new.ready_at is distinct from old.ready_at) then
        raise exception 'version % is immutable', old.version_id using errcode = 'check_violation';
    end if;
    if new.state <> old.state and (old.state, new.state) not in (
        ('pending', 'uploaded'), ('pending', 'rejected'), ('pending', 'erased'),
        ('uploaded', 'ready'), ('uploaded', 'rejected'), ('uploaded', 'erased'),
        ('ready', 'retired'), ('ready', 'suspended'), ('ready', 'erased'),
        ('suspended', 'ready'), ('suspended', 'retired'), ('suspended', 'erased'),
        ('rejected', 'erased'), ('retired', 'erased')
    ) then
        raise exception 'a version cannot go from % to %', old.state, new.state using errcode = 'check_violation';
    end if;
    return new;
end $$
"""
_GUARD_AUDIT = """
create function audit_guard() returns trigger language plpgsql as $$
begin
    raise exception 'the audit trail is only ever added to' using errcode = 'check_violation';
end $$
"""


def upgrade() -> None:
    now = sa.text("now()")
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "base_model",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("identity", sa.JSON, nullable=False),
        sa.Column("created_at", moment, server_default=now, nullable=False),
    )
    op.create_table(
        "adapter",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("created_at", moment, server_default=now, nullable=False),
        sa.UniqueConstraint("tenant", "user_id", "name", name="uq_adapter_owner_name"),
    )
    op.create_index("ix_adapter_tenant_id", "adapter", ["tenant", "id"])
    op.create_table(
        "adapter_version",
        sa.Column("version_id", sa.Text, primary_key=True),
        sa.Column("adapter_id", sa.BigInteger, sa.ForeignKey("adapter.id"), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("base_id", sa.Text, sa.ForeignKey("base_model.id"), nullable=False),
        sa.Column("content_digest", sa.Text, nullable=False),
        sa.Column("manifest", sa.JSON),
        sa.Column("manifest_digest", sa.Text, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("reason_field", sa.Text),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("ready_at", moment),
        sa.UniqueConstraint("adapter_id", "number", name="uq_adapter_version_number"),
        sa.UniqueConstraint("adapter_id", "version_id", name="uq_adapter_version_adapter"),
        sa.CheckConstraint(f"state in {_STATES}", name="state"),
        sa.CheckConstraint("number > 0", name="number"),
        sa.CheckConstraint("version_id ~ '^v[0-9a-f]{32}$'", name="version_id"),
        sa.CheckConstraint("state = 'erased' or manifest is not null", name="manifest"),
        sa.CheckConstraint("state <> 'ready' or ready_at is not null", name="ready_at"),
        sa.CheckConstraint("state <> 'rejected' or reason is not null", name="reason"),
    )
    op.create_index(
        "uq_adapter_version_content",
        "adapter_version",
        ["adapter_id", "content_digest"],
        unique=True,
        postgresql_where=sa.text("state <> 'rejected'"),
    )
    op.create_table(
        "alias",
        sa.Column("adapter_id", sa.BigInteger, primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("version_id", sa.Text, nullable=False),
        sa.Column("moved_at", moment, server_default=now, nullable=False),
        sa.ForeignKeyConstraint(
            ["adapter_id", "version_id"],
            ["adapter_version.adapter_id", "adapter_version.version_id"],
            name="fk_alias_version",
        ),
    )
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("at", moment, server_default=now, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("adapter_id", sa.BigInteger, sa.ForeignKey("adapter.id")),
        sa.Column("version_id", sa.Text),
        sa.Column("from", sa.Text),
        sa.Column("to", sa.Text),
        sa.Column("why", sa.Text),
    )
    op.create_index("ix_audit_adapter_id", "audit", ["adapter_id", "id"])
    op.execute(_GUARD_VERSION)
    op.execute(
        "create trigger adapter_version_guard before insert or update or delete on adapter_version "
        "for each row execute function adapter_version_guard()"
    )
    op.execute(_GUARD_AUDIT)
    op.execute(
        "create trigger audit_guard before update or delete on audit for each row execute function audit_guard()"
    )


def downgrade() -> None:
    for table in ("audit", "alias", "adapter_version", "adapter", "base_model"):
        op.drop_table(table)
    op.execute("drop function adapter_version_guard()")
    op.execute("drop function audit_guard()")
