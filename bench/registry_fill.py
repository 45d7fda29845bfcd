"""A registry of any size, written into PostgreSQL by statements that write millions of rows each.

Realistic in what costs: manifests of about 3 KiB each, no two alike, three versions an adapter of which the newest is
live, some retired, a few suspended; names, digests and ids of real length. Triggers and indexes are the migrated
schema's own; the triggers are switched off while filling, since a version begins as pending and these are older.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass

import asyncpg

from kit.database import Database

TENANT = "bench"
BASE_ID = "bench/base"
_BATCH = 50_000
# What a trained version's manifest holds; %(…)s are SQL expressions over a (adapter) and n (version number).
_MANIFEST = """
json_build_object(
    'owner', json_build_object('tenant', a.tenant, 'user', a.user_id), 'adapter', a.name, 'version', n,
    'base', (select identity from base_model where id = a.base_id),
    'lora', json_build_object('rank', 16, 'alpha', 32.0, 'target_modules',
        json_build_array('down_proj', 'gate_proj', 'k_proj', 'o_proj', 'q_proj', 'up_proj', 'v_proj')),
    'files', json_build_array(
        json_build_object('path', 'adapter_config.json', 'size_bytes', 812, 'sha256', a.digest),
        json_build_object('path', 'adapter_model.safetensors', 'size_bytes', 9784320, 'sha256', a.content)),
    'lineage', json_build_object(
        'dataset_digest', a.content,
        'transcript_ids', (select json_agg(encode(sha256(convert_to(a.user_id || '-' || t, 'UTF8')), 'hex'))
                           from generate_series(1, 20) t),
        'question_writer', 'extractive/3', 'seed', 7,
        'hyperparameters', json_build_object('steps', 120, 'batch_size', 8, 'learning_rate', 0.0002, 'max_length', 512,
            'warmup_ratio', 0.05, 'rank', 16, 'alpha', 32, 'dropout', 0.0, 'quantisation', 'nf4'),
        'packages', json_build_object('torch', '2.13.0', 'trl', '1.16.0', 'peft', '0.21.2', 'transformers', '5.16.0'),
        'parent_version_id', null, 'trained_at', '2026-11-01T08:00:00Z'),
    'evaluation', json_build_object(
        'held_out', json_build_object('base_loss', 3.5, 'own_loss', 2.0 + (a.number %% 1000) / 1000.0, 'examples', 40),
        'passed', true, 'gate', 'trained/1'),
    'format', 'lorry.adapter/1', 'version_id', a.version_id, 'created_at', a.created_at
)
"""


@dataclass(frozen=True, kw_only=True)
class Filled:
    """What was written: adapters numbered from 0."""

    adapters: int
    versions: int
    seconds: float
    database_bytes: int

    def version_id(self, adapter: int, version: int) -> str:
        """Return the id of an adapter's version."""
        return "v" + hashlib.md5(f"{adapter + 1}/{version}".encode(), usedforsecurity=False).hexdigest()


def user_name(number: int) -> str:
    """Return one user's name: opaque and of a UUID's length, as real ones are."""
    return f"u{number:08d}-5f0c-4a2e-9d0b-{number * 2654435761 % (1 << 48):012x}"


async def fill(
    database: Database, *, adapters: int, versions_each: int = 3, on_progress: Callable[[int, int], None] | None = None
) -> Filled:
    """Write `adapters` adapters with `versions_each` versions each into an empty, migrated database.

    Takes about five minutes a million adapters on two cores, and 9 GiB of disk.
    """
    started = time.perf_counter()
    connection = await _connect(database)
    try:
        await connection.execute("set statement_timeout = 0; set session_replication_role = replica;")
        await connection.execute("set synchronous_commit = off; set work_mem = '256MB';")
        await connection.execute(_BASE, BASE_ID)
        for first in range(0, adapters, _BATCH):
            last = min(first + _BATCH, adapters)
            await connection.execute(_ADAPTERS, first, last - 1)
            await connection.execute(_VERSIONS, first, last - 1, versions_each)
            await connection.execute(_ALIASES, first, last - 1)
            if on_progress is not None:
                on_progress(last, adapters)
        await connection.execute(_SUSPENSIONS, TENANT)
        await connection.execute("vacuum (analyze)")
        await connection.execute("checkpoint")
        size = await connection.fetchval("select pg_database_size(current_database())")
        versions = await connection.fetchval("select count(*) from adapter_version")
    finally:
        await connection.close()
    return Filled(adapters=adapters, versions=versions, seconds=time.perf_counter() - started, database_bytes=int(size))


async def _connect(database: Database) -> asyncpg.Connection:
    """A connection without time-outs: one batch takes seconds."""
    url = database.engine.url
    return await asyncpg.connect(
        host=url.query.get("host") or url.host, port=url.port, user=url.username, password=url.password,
        database=url.database,
    )  # fmt: skip


_BASE = """
insert into base_model (id, identity) values ($1::text, json_build_object(
    'id', $1::text, 'revision', null, 'config_sha256', repeat('1', 64), 'weights_sha256', repeat('2', 64),
    'tokenizer_sha256', repeat('3', 64), 'chat_template_sha256', repeat('4', 64)))
"""
_USER = """
'u' || lpad(number::text, 8, '0') || '-5f0c-4a2e-9d0b-'
    || lpad(to_hex((number::numeric * 2654435761 % 281474976710656)::bigint), 12, '0')
"""
_ADAPTERS = f"""
insert into adapter (id, tenant, user_id, name, created_at) overriding system value
select number + 1, '{TENANT}', {_USER}, 'profile', now() - (($2 - number) || ' milliseconds')::interval
    - interval '30 days'
from generate_series($1::bigint, $2::bigint) number
"""
_VERSIONS = f"""
insert into adapter_version (version_id, adapter_id, number, state, base_id, content_digest, manifest, manifest_digest,
                             size_bytes, created_at, ready_at, retired_at, sealed_bytes)
select a.version_id, a.id, n, case when n = 1 and $3 > 2 then 'retired' else 'ready' end, a.base_id, a.content,
       {_MANIFEST.replace("%%", "%")}, a.digest, 9785132, a.created_at, a.created_at,
       case when n = 1 and $3 > 2 then a.created_at end, 9790000
from (
    select adapter.*, n, id - 1 as number, '{BASE_ID}' as base_id,
           'v' || md5(id || '/' || n) as version_id,
           encode(sha256(convert_to('c' || id || '/' || n, 'UTF8')), 'hex') as content,
           encode(sha256(convert_to('m' || id || '/' || n, 'UTF8')), 'hex') as digest
    from adapter cross join generate_series(1, $3::int) n
    where id between $1::bigint + 1 and $2::bigint + 1
) a
"""
_ALIASES = """
insert into alias (adapter_id, name, version_id)
select adapter_id, 'live', (array_agg(version_id order by number desc))[1] from adapter_version
where adapter_id between $1::bigint + 1 and $2::bigint + 1 group by adapter_id
"""
_SUSPENSIONS = """
insert into suspension (tenant, user_id, adapter, actor, why)
select $1::text, user_id, '', 'bench', 'one user in a thousand' from adapter where id % 1000 = 0
"""
