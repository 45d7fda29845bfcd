"""Erasures: who is being erased, step by step, on which disks, and the guard that takes nothing of theirs in."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0012_erasure"
down_revision = "0007_curation"
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True)
_NOW = sa.text("now()")

# The shared lock lets an erasure wait for whoever began to write before it was asked for: see `erasure_lock`.
_LOCK = """
create function erasure_lock(a_tenant text, a_user text) returns bigint language sql immutable as $$
    select hashtextextended('lorry erasure' || chr(10) || a_tenant || chr(10) || a_user, 0)
$$
"""
_REFUSE = """
create function refuse_erasing_user(a_tenant text, a_user text) returns void language plpgsql as $$
begin
    perform pg_advisory_xact_lock_shared(erasure_lock(a_tenant, a_user));
    if exists (select 1 from erasure where tenant = a_tenant and user_id = a_user) then
        raise exception 'the user is being erased' using errcode = 'LE409';
    end if;
end $$
"""
_REFUSING_USER = """
create function refuse_erasing() returns trigger language plpgsql as $$
begin
    perform refuse_erasing_user(new.tenant, new.user_id);
    return new;
end $$
"""
_REFUSING_VERSION = """
create function refuse_erasing_version() returns trigger language plpgsql as $$
begin
    perform refuse_erasing_user(adapter.tenant, adapter.user_id) from adapter where adapter.id = new.adapter_id;
    return new;
end $$
"""
_REFUSING_CAMPAIGN_USER = """
create function refuse_erasing_campaign_user() returns trigger language plpgsql as $$
begin
    perform refuse_erasing_user(tenant, new.user_id) from training_campaign where id = new.campaign_id;
    return new;
end $$
"""
_REFUSING_PROFILE = """
create function refuse_erased_profile() returns trigger language plpgsql as $$
begin
    perform refuse_erasing_user(new.tenant, new.user_id);
    if exists (select 1 from adapter_version where version_id = new.version_id and state = 'erased') then
        raise exception 'the version was erased' using errcode = 'LE409';
    end if;
    return new;
end $$
"""
_HIDING = """
create function hide_erasing() returns trigger language plpgsql as $$
declare running text;
begin
    perform pg_advisory_xact_lock_shared(erasure_lock(new.tenant, new.user_id));
    select id into running from erasure where tenant = new.tenant and user_id = new.user_id;
    if running is not null then
        new.user_id = 'erased:' || substr(running, 2);
    end if;
    return new;
end $$
"""
_TRACES = """
create function user_traces(a_tenant text, a_user text) returns table(place text, held bigint)
language plpgsql stable as $$
declare t record;
begin
    for t in
        select n.nspname, c.relname,
               exists (select 1 from pg_attribute a where a.attrelid = c.oid and a.attname = 'tenant') as has_tenant
        from pg_class c join pg_namespace n on n.oid = c.relnamespace
        join pg_attribute u on u.attrelid = c.oid and u.attname = 'user_id' and not u.attisdropped
        where c.relkind in ('r', 'p') and not c.relispartition and n.nspname !~ '^pg_' and n.nspname <> 'dbos'
          and n.nspname <> 'information_schema' and c.relname <> 'erasure'
        order by c.relname
    loop
        if t.has_tenant then
            execute format('select count(*) from %I.%I where tenant = $1 and user_id = $2', t.nspname, t.relname)
                into held using a_tenant, a_user;
        elsif t.relname = 'training_campaign_user' then
            select count(*) into held from training_campaign_user m
                join training_campaign g on g.id = m.campaign_id where g.tenant = a_tenant and m.user_id = a_user;
        else
            execute format('select count(*) from %I.%I where user_id = $1', t.nspname, t.relname)
                into held using a_user;
        end if;
        place = t.relname;
        if held > 0 then
            return next;
        end if;
    end loop;
end $$
"""
_FUNCTIONS = (
    _LOCK,
    _REFUSE,
    _REFUSING_USER,
    _REFUSING_VERSION,
    _REFUSING_CAMPAIGN_USER,
    _REFUSING_PROFILE,
    _HIDING,
    _TRACES,
)
_REFUSING = ("transcript", "training_job", "training_curation", "training_trained", "adapter", "data_key")


def upgrade() -> None:
    _add_erasures()
    _add_disks()
    for function in _FUNCTIONS:
        op.execute(function)
    for table in _REFUSING:
        _guard(table, "refuse_erasing")
    _guard("adapter_version", "refuse_erasing_version")
    _guard("training_campaign_user", "refuse_erasing_campaign_user")
    _guard("profile", "refuse_erased_profile")
    _guard("training_cost", "hide_erasing")
    op.execute(  # a job that has ended can be begun again
        "create trigger refuse_erasing_again before update on training_job for each row "
        "when (old.ended_at is not null and new.ended_at is null) execute function refuse_erasing()"
    )


def _guard(table: str, function: str) -> None:
    op.execute(f"create trigger {function} before insert on {table} for each row execute function {function}()")


def _add_erasures() -> None:
    op.create_table(
        "erasure",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("user_id", sa.Text),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("asked_by", sa.Text, nullable=False),
        sa.Column("asked_at", _MOMENT, server_default=_NOW, nullable=False),
        sa.Column("ended_at", _MOMENT),
        sa.CheckConstraint("id ~ '^e[0-9a-f]{32}$'", name="ck_erasure_id"),
        sa.CheckConstraint("(user_id is null) = (ended_at is not null)", name="ck_erasure_ended"),
    )
    op.create_index(
        "uq_erasure_user",
        "erasure",
        ["tenant", "user_id"],
        unique=True,
        postgresql_where=sa.text("user_id is not null"),
    )
    op.create_index("ix_erasure_subject", "erasure", ["tenant", "subject", "asked_at"])
    op.create_table(
        "erasure_step",
        sa.Column("erasure_id", sa.Text, sa.ForeignKey("erasure.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("store", sa.Text, primary_key=True),
        sa.Column("found", JSONB, nullable=False),
        sa.Column("waits_for", JSONB, nullable=False),
        sa.Column("told", JSONB, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("began_at", _MOMENT, server_default=_NOW, nullable=False),
        sa.Column("looked_at", _MOMENT, server_default=_NOW, nullable=False),
        sa.Column("ended_at", _MOMENT),
    )


def _add_disks() -> None:
    op.create_table(
        "training_erasure",
        sa.Column("erasure_id", sa.Text, primary_key=True),
        sa.Column("worker_id", sa.Text, primary_key=True),
        sa.Column("job_ids", JSONB, nullable=False),
        sa.Column("version_ids", JSONB, nullable=False),
        sa.Column("asked_at", _MOMENT, server_default=_NOW, nullable=False),
        sa.Column("ended_at", _MOMENT),
        sa.Column("outcome", sa.Text),
        sa.Column("removed", sa.Integer, server_default="0", nullable=False),
        sa.CheckConstraint("(ended_at is null) = (outcome is null)", name="ck_training_erasure_outcome"),
    )
    op.create_table(
        "home",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("seen_at", _MOMENT, server_default=_NOW, nullable=False),
    )
    op.create_table(
        "home_erasure",
        sa.Column("erasure_id", sa.Text, primary_key=True),
        sa.Column("home_id", sa.Text, primary_key=True),
        sa.Column("asked_at", _MOMENT, server_default=_NOW, nullable=False),
        sa.Column("ended_at", _MOMENT),
        sa.Column("outcome", sa.Text),
        sa.Column("removed", sa.Integer, server_default="0", nullable=False),
        sa.CheckConstraint("(ended_at is null) = (outcome is null)", name="ck_home_erasure_outcome"),
    )


def downgrade() -> None:
    op.execute("drop trigger refuse_erasing_again on training_job")
    for table in _REFUSING:
        op.execute(f"drop trigger refuse_erasing on {table}")
    op.execute("drop trigger refuse_erasing_version on adapter_version")
    op.execute("drop trigger refuse_erasing_campaign_user on training_campaign_user")
    op.execute("drop trigger refuse_erased_profile on profile")
    op.execute("drop trigger hide_erasing on training_cost")
    for function in (
        "user_traces(text, text)",
        "hide_erasing()",
        "refuse_erased_profile()",
        "refuse_erasing_campaign_user()",
        "refuse_erasing_version()",
        "refuse_erasing()",
        "refuse_erasing_user(text, text)",
        "erasure_lock(text, text)",
    ):
        op.execute(f"drop function {function}")
    for table in ("home_erasure", "home", "training_erasure", "erasure_step", "erasure"):
        op.drop_table(table)
