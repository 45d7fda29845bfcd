"""The SQL of tenants' rules, and of what they are measured against. Nothing here commits."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, fields
from typing import Any

from sqlalchemy import delete, exists, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from training.jobs.models import RulesRow, TrainedRow
from training.jobs.staleness import Rules
from training.jobs.states import Stage, State
from transcripts.models import TranscriptRow

# Words of those transcripts that had counted twice by then: another one held them that was trained on, too. What was
# the last state when its user was trained had counted once, and rightly: what went on since is new.
_COUNTED_TWICE = """
    select coalesce(sum(s.user_word_count), 0) from transcript s
    where s.tenant = :tenant and s.user_id = :user and s.id = any(:ids) and {s_was_there}
    and exists (
        select 1 from transcript h
        where h.tenant = s.tenant and h.user_id = s.user_id and h.id <> s.id and h.turn_count >= s.turn_count
        and h.marks @> array[s.sought] and {h_was_there}
    )
"""
_BY_TIME = {f"{name}_was_there": f"{name}.imported_at <= t.trained_at" for name in "sh"}
_BY_ID = {f"{name}_was_there": f"g.result->'transcript_ids' ? {name}.id" for name in "sh"}
_RECOUNT = f"""
update training_trained t set words = greatest(0, t.words - ({_COUNTED_TWICE.format(**_BY_TIME)}))
where t.tenant = :tenant and t.user_id = :user
"""
# A failed job may be retried, and goes on with the snapshot that it took.
_RECOUNT_JOBS = f"""
update training_stage g
set result = jsonb_set(g.result, '{{words}}', to_jsonb(greatest(
    0, (g.result->>'words')::int - ({_COUNTED_TWICE.format(**_BY_ID)})
)))
from training_job j
where j.id = g.job_id and j.tenant = :tenant and j.user_id = :user
and (j.ended_at is null or j.state = '{State.FAILED}') and g.stage = '{Stage.SNAPSHOT}'
"""


class RulesRepository:
    """Reads and writes `training_rules` through one session."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def get(self, tenant: str) -> Rules:
        """Return the tenant's rules; without any, nobody is trained unasked."""
        row = await self._session.get(RulesRow, tenant, populate_existing=True)
        return _rules(row) if row else Rules()

    async def put(self, tenant: str, rules: Rules) -> None:
        """Set the tenant's rules."""
        stored = asdict(rules)
        if not stored["settings"]:
            del stored["settings"]  # which the release before this one does not know
        values = {"rules": stored, "checked_at": None}
        statement = insert(RulesRow).values(tenant=tenant, **values)
        await self._session.execute(statement.on_conflict_do_update(index_elements=["tenant"], set_=values))

    async def all(self) -> dict[str, Rules]:
        """Return every tenant's rules."""
        return {row.tenant: _rules(row) for row in (await self._session.execute(select(RulesRow))).scalars()}

    async def checked(self, tenant: str) -> None:
        """Write down that the tenant's users were looked at now."""
        await self._session.execute(update(RulesRow).where(RulesRow.tenant == tenant).values(checked_at=func.now()))


class TrainedRepository:
    """Reads and writes `training_trained` through one session: what each user's adapter was trained on last."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def keep(self, values: Mapping[str, Any]) -> None:
        """Remember what a user's adapter was trained on, in the place of what it was trained on before."""
        statement = insert(TrainedRow).values(**values)
        keys = ["tenant", "user_id", "adapter"]
        changed = {key: value for key, value in values.items() if key not in keys}
        await self._session.execute(statement.on_conflict_do_update(index_elements=keys, set_=changed))

    async def all(self, *, tenant: str, adapter: str) -> dict[str, TrainedRow]:
        """Return what each user of the tenant was trained on last."""
        query = select(TrainedRow).where(TrainedRow.tenant == tenant, TrainedRow.adapter == adapter)
        return {row.user_id: row for row in (await self._session.execute(query)).scalars()}

    async def recount(self, *, tenant: str, user: str, transcript_ids: Collection[str]) -> None:
        """Take the words of transcripts that had counted although others continue them from what was trained on.

        Words are taken away only where both states had counted by then. The same is done in the snapshots of jobs that
        go on, and first: a job that is just remembered holds its own until its row is there to be counted again.
        """
        if transcript_ids:
            about = {"tenant": tenant, "user": user, "ids": sorted(transcript_ids)}
            await self._session.execute(text(_RECOUNT_JOBS), about)
            await self._session.execute(text(_RECOUNT), about)

    async def forget_erased(self) -> int:
        """Forget what users were trained on who have no transcripts any more; return how many there were."""
        theirs = exists().where(TranscriptRow.tenant == TrainedRow.tenant, TranscriptRow.user_id == TrainedRow.user_id)
        gone = await self._session.execute(delete(TrainedRow).where(~theirs).returning(TrainedRow.user_id))
        return len(gone.all())


def _rules(row: RulesRow) -> Rules:
    """Return a tenant's rules, but none that only a later release knows: one that was rolled back."""
    known = {field.name for field in fields(Rules)}
    return Rules(**{name: value for name, value in row.rules.items() if name in known})
