"""Evaluation reports that are attached to a version after it was published; a gate looks at the newest."""

from __future__ import annotations

from kit.database import Database
from registry.errors import IllegalTransition, VersionNotFound
from registry.lifecycle.repository import LifecycleRepository
from registry.lifecycle.schemas import EvaluationReport
from registry.manifest import JsonObject
from registry.models import EvaluationReportRow, State

_MAX_LISTED = 100
_JUDGED = (State.READY, State.SUSPENDED, State.RETIRED)


class Evaluations:
    """What was found out about versions."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def attach(self, version_id: str, report: JsonObject, *, actor: str) -> EvaluationReport:
        """Attach a report; the same one as the newest again is no error and attaches nothing.

        Raises:
            VersionNotFound: when there is no such version.
            IllegalTransition: when it was never ready, or was erased.
        """
        async with self._database.transaction() as session:
            repository = LifecycleRepository(session)
            row = await repository.lock_version(version_id)
            if row is None:
                raise VersionNotFound(f"there is no version {version_id}", field="version_id")
            if row.state not in _JUDGED:
                raise IllegalTransition(f"version {version_id} is {row.state}; it takes no report", field="version_id")
            newest = await repository.newest_report(version_id)
            if newest is None or newest.report != report:
                newest = await repository.add_report(version_id, report, actor=actor)
                repository.record(
                    actor, "evaluation", adapter_id=row.adapter_id, version_id=version_id, after=f"report {newest.id}"
                )
        return _report(newest)

    async def list(self, version_id: str) -> list[EvaluationReport]:
        """Return the attached reports, the newest first, at most 100; what came with the version is in its manifest.

        Raises:
            VersionNotFound: when there is no such version.
        """
        async with self._database.transaction() as session:
            repository = LifecycleRepository(session)
            if await repository.get_version(version_id) is None:
                raise VersionNotFound(f"there is no version {version_id}", field="version_id")
            rows = await repository.list_reports(version_id, limit=_MAX_LISTED)
        return [_report(row) for row in rows]


def _report(row: EvaluationReportRow) -> EvaluationReport:
    return EvaluationReport(id=row.id, version_id=row.version_id, at=row.at, actor=row.actor, report=row.report)
