"""`lorry erase`: everything of a user, in every store, with a report of what was done where."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from kit.names import check_name
from lorry.context import Context, open_context
from lorry.erasure.conducting import rooms_of
from lorry.erasure.conductor import Conductor
from lorry.erasure.files import UserFiles
from lorry.erasure.repository import HomeRepository
from lorry.erasure.stores import Rooms, stores
from lorry.errors import NotThere
from lorry.output import confirm, out, print_json, print_table, run, say, shown_time
from serving.erasure.desk import ErasureDesk
from serving.erasure.report import ErasureReport
from serving.erasure.repository import Task

_POLL_SECONDS = 1.0
_NOT_DONE = 4
_COLUMNS = ["store", "state", "found", "waits for, or told"]


def erase(
    user: Annotated[str, typer.Argument(help="user_id of who is to be erased")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only count what there is, store by store")] = False,
    follow: Annotated[bool, typer.Option("--follow", help="wait until nothing is left anywhere")] = False,
    gone: Annotated[
        list[str] | None,
        typer.Option("--gone", help="a worker or home, as the report names it, that will never come back"),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of a table")] = False,
) -> None:
    """Erase everything of a user: transcripts, trainings, adapters, profiles, their key, and every copy in an engine.

    From the first moment on, nothing of theirs is taken in, made or answered, anywhere. What cannot be erased at once,
    as an engine or a worker that is switched off, is named; the command may be given again, and goes on where it was.
    """
    if dry_run:
        found = run(_count(user), as_json=as_json)
        if as_json:
            print_json(found)
        else:
            rows = [[store, kind, str(count)] for store, kinds in found.items() for kind, count in kinds.items()]
            print_table(f"What there is of {user}", ["store", "kind", "count"], rows, numeric=frozenset({"count"}))
        return
    report = run(_erase(user, follow=follow, gone=gone or [], yes=yes), as_json=as_json)
    if as_json:
        print_json(report.model_dump(mode="json"))
    else:
        _print(report)
    if report.state != "done":
        raise typer.Exit(_NOT_DONE)


async def _count(user: str) -> dict[str, dict[str, int]]:
    check_name(user, field="user_id")
    async with open_context() as context:
        task = Task(id="e" + "0" * 32, tenant=context.settings.tenant, user=user)
        rooms = rooms_of(context.plan, database=context.database, registry=context.registry)
        found = {each.name: await each.found(task) for each in stores(rooms)}
        counted = {store: {kind: count for kind, count in kinds.items() if count} for store, kinds in found.items()}
    counted = {store: kinds for store, kinds in counted.items() if kinds}
    if not counted:
        raise NotThere(f"there is nothing of user {user!r}", field="user")
    return counted


async def _erase(user: str, *, follow: bool, gone: list[str], yes: bool) -> ErasureReport:
    check_name(user, field="user_id")
    async with open_context() as context:
        tenant, desk = context.settings.tenant, ErasureDesk(context.database)
        rooms = rooms_of(context.plan, database=context.database, registry=context.registry)
        files = UserFiles(context.home, tenant=tenant, user=user)
        confirm(f"Erase everything of {user} in {tenant}? Nothing brings it back.", yes=yes)
        report = await desk.ask(tenant, user, asked_by=context.settings.actor, known=files.count() > 0)
        task = Task(id=report.id, tenant=tenant, user=user)
        await _give_up(context, rooms, task, gone)
        conductor = Conductor(context.database, stores(rooms))
        report = await conductor.advance(task)
        told: list[str] = []
        while follow and report.state != "done":
            if report.waits_for != told:
                told = report.waits_for
                for why in told:
                    say(f"  waiting for {why}")
            await asyncio.sleep(_POLL_SECONDS)
            report = await conductor.advance(task)
    return report


async def _give_up(context: Context, rooms: Rooms, task: Task, gone: list[str]) -> None:
    """Take disks for gone that an operator says will not come back.

    Raises:
        NotThere: nothing is waited for from that name.
    """
    for name in gone:
        async with context.database.transaction() as session:
            is_home = await HomeRepository(session).end(task.id, name, outcome="gone")
        if not is_home and not await rooms.trainings.give_up_worker(task.id, name):
            raise NotThere(f"the erasure does not wait for a worker or home {name!r}", field="gone")


def _print(report: ErasureReport) -> None:
    rows = [
        [
            each.store,
            each.state,
            ", ".join(f"{count} {kind}" for kind, count in each.found.items() if count) or "—",
            "; ".join(each.waits_for or each.told) or "—",
        ]
        for each in report.stores
    ]
    print_table(f"Erasure {report.id}", _COLUMNS, rows)
    if report.state == "done":
        out.print(f"nothing is left since {shown_time(report.ended_at, seconds=True)}", highlight=False)
    else:
        out.print("not everything is gone yet: give the command again, or with --follow", highlight=False)
