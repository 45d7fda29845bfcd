"""Erasures: who is being erased, step by step, on which disks, and the guard that takes nothing of theirs in."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0012_erasure"
down_revision = "0011_gateway"
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True)
_NOW = sa.text("now()")

# The shared lock lets an erasure wait for whoever began to write before it was asked for. Statements that write rows of
# many users take one lock for their tenant's, whose user is empty: locks of a transaction are a bounded good.
_LOCK = """
create function erasure_lock(a_tenant text, a_user text) returns bigint language sql immutable as $$
    select hashtextextended('lorry erasure' || chr(10) || a_tenant || chr(10) || a_user, 0)
$$
"""
# As `serving.erasure.repository` makes it; names need no escaping in JSON.
_SUBJECT = """
create function erasure_subject(a_tenant text, a_user text) returns text language sql immutable as $$
    select encode(sha256(convert_to(format('["%s","%s"]', a_tenant, a_user), 'UTF8')), 'hex')
$$
"""
# What is written down later than it came to be, asks about erasures that have ended since, too.
_ERASURE_OF = """
create function erasure_of(a_tenant text, a_user text, since timestamptz) returns text language plpgsql as $$
declare found_id text;
begin
    select id into found_id from erasure where tenant = a_tenant and user_id = a_user;
    if found_id is null and since is not null then
        select id into found_id from erasure
            where tenant = a_tenant and subject = erasure_subject(a_tenant, a_user) and ended_at > since
            order by ended_at desc limit 1;
    end if;
    return found_id;
end $$
"""
_PSEUDONYM = """
create function erasure_pseudonym(an_id text) returns text language sql immutable as $$
    select 'erased:' || substr(an_id, 2)
$$
"""
_REFUSE = """
create function refuse_erasing_user(a_tenant text, a_user text) returns void language plpgsql as $$
begin
    perform pg_advisory_xact_lock_shared(erasure_lock(a_tenant, a_user));
    if erasure_of(a_tenant, a_user, null) is not null then
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
declare a_tenant text;
begin
    select tenant into a_tenant from training_campaign where id = new.campaign_id;
    perform pg_advisory_xact_lock_shared(erasure_lock(a_tenant, ''));
    if erasure_of(a_tenant, new.user_id, null) is not null then
        raise exception 'the user is being erased' using errcode = 'LE409';
    end if;
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
    running = erasure_of(new.tenant, new.user_id, null);
    if running is not null then
        new.user_id = erasure_pseudonym(running);
    end if;
    return new;
end $$
"""
_HIDING_USAGE = """
create function hide_erased_usage() returns trigger language plpgsql as $$
declare erased text;
begin
    perform pg_advisory_xact_lock_shared(erasure_lock(new.tenant, ''));
    erased = erasure_of(new.tenant, new.user_id, new.counted_at);
    if erased is not null then
        new.user_id = erasure_pseudonym(erased);
    end if;
    return new;
end $$
"""
_HIDING_BATCH_USER = """
create function hide_erasing_batch_user() returns trigger language plpgsql as $$
declare batch record; erased text;
begin
    select tenant, submitted_at into batch from extraction_batch where id = new.batch_id;
    perform pg_advisory_xact_lock_shared(erasure_lock(batch.tenant, ''));
    erased = erasure_of(batch.tenant, new.user_id, batch.submitted_at);
    if erased is not null then
        new.user_id = erasure_pseudonym(erased);
        new.state = 'canceled';
        new.version_id = null;
        new.version = null;
        new.ended_at = clock_timestamp();
    end if;
    return new;
end $$
"""
# A row that is not returned is not changed: whoever takes users in hand passes over this one.
_PASSING_OVER = """
create function refuse_erasing_hand() returns trigger language plpgsql as $$
declare a_tenant text;
begin
    select tenant into a_tenant from extraction_batch where id = new.batch_id;
    perform pg_advisory_xact_lock_shared(erasure_lock(a_tenant, ''));
    if erasure_of(a_tenant, new.user_id, null) is not null then
        return null;
    end if;
    return new;
end $$
"""
_REFUSING_ANSWER = """
create function refuse_erased_answer() returns trigger language plpgsql as $$
begin
    perform pg_advisory_xact_lock_shared(erasure_lock(new.tenant, new.user_id));
    if erasure_of(new.tenant, new.user_id, new.taken_at) is not null then
        raise exception 'the user was erased meanwhile' using errcode = 'LE409';
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
        elsif t.relname = 'extraction_batch_user' then
            select count(*) into held from extraction_batch_user u
                join extraction_batch b on b.id = u.batch_id where b.tenant = a_tenant and u.user_id = a_user;
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
    _SUBJECT,
    _ERASURE_OF,
    _PSEUDONYM,
    _REFUSE,
    _REFUSING_USER,
    _REFUSING_VERSION,
    _REFUSING_CAMPAIGN_USER,
    _REFUSING_PROFILE,
    _HIDING,
    _HIDING_USAGE,
    _HIDING_BATCH_USER,
    _PASSING_OVER,
    _REFUSING_ANSWER,
    _TRACES,
)
_REFUSING = (
    "transcript",
    "transcript_name",
    "training_job",
    "training_curation",
    "training_trained",
    "adapter",
    "data_key",
    "profile_correction",
)
_GUARDS = {
    "adapter_version": "refuse_erasing_version",
    "training_campaign_user": "refuse_erasing_campaign_user",
    "profile": "refuse_erased_profile",
    "training_cost": "hide_erasing",
    "usage_day": "hide_erased_usage",
    "extraction_batch_user": "hide_erasing_batch_user",
}


def upgrade() -> None:
    _add_erasures()
    op.add_column("gateway_request", sa.Column("taken_at", _MOMENT, server_default=_NOW, nullable=False))
    op.add_column("usage_day", sa.Column("counted_at", _MOMENT, server_default=_NOW, nullable=False))
    _add_disks()
    for function in _FUNCTIONS:
        op.execute(function)
    for table in _REFUSING:
        _guard(table, "refuse_erasing")
    for table, function in _GUARDS.items():
        _guard(table, function)
    op.execute(
        "create trigger refuse_erasing_hand before update on extraction_batch_user for each row "
        "when (old.state <> 'held' and new.state = 'held') execute function refuse_erasing_hand()"
    )
    op.execute(
        "create trigger refuse_erased_answer before insert or update on gateway_request for each row "
        "when (new.user_id is not null) execute function refuse_erased_answer()"
    )
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
    op.execute("drop trigger refuse_erasing_hand on extraction_batch_user")
    op.execute("drop trigger refuse_erased_answer on gateway_request")
    for table, function in _GUARDS.items():
        op.execute(f"drop trigger {function} on {table}")
    for function in (
        "user_traces(text, text)",
        "refuse_erased_answer()",
        "refuse_erasing_hand()",
        "hide_erasing_batch_user()",
        "hide_erased_usage()",
        "hide_erasing()",
        "refuse_erased_profile()",
        "refuse_erasing_campaign_user()",
        "refuse_erasing_version()",
        "refuse_erasing()",
        "refuse_erasing_user(text, text)",
        "erasure_pseudonym(text)",
        "erasure_of(text, text, timestamptz)",
        "erasure_subject(text, text)",
        "erasure_lock(text, text)",
    ):
        op.execute(f"drop function {function}")
    for table in ("home_erasure", "home", "training_erasure", "erasure_step", "erasure"):
        op.drop_table(table)
    op.drop_column("usage_day", "counted_at")
    op.drop_column("gateway_request", "taken_at")
