"""`lorry extractions work | workers | limits | webhook-secret`: what operators do."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import asdict
from typing import Annotated, Any

import typer

from lorry.commands.extraction_settings import batch_settings, worker_settings
from lorry.context import open_context
from lorry.output import out, print_json, print_table, run, say, shown_time
from serving.jobs.fleet.fleet import Fleet
from serving.jobs.limits import Limits, TenantLimits
from serving.jobs.webhooks.secrets import WebhookSecrets

Json = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]


def work(
    until_idle: Annotated[bool, typer.Option("--until-idle", help="end when no batch is left to do")] = False,
    worker_id: Annotated[str | None, typer.Option(help="stable name of this worker; the host's when omitted")] = None,
) -> None:
    """Work batches off until Ctrl-C; a worker that is stopped or killed loses nothing."""
    run(_work(until_idle=until_idle, worker_id=worker_id))


def workers(as_json: Json = False) -> None:
    """List workers: alive, lapsed (silent for longer than their lease) or left."""
    found = run(_workers(), as_json=as_json)
    if as_json:
        print_json(found)
        return
    rows = [
        [each["worker_id"], each["state"], each["host"], str(each["users"]), shown_time(each["heard_at"])]
        for each in found
    ]
    columns = ["worker", "state", "host", "in hand", "heard"]
    print_table("Extraction workers", columns, rows, numeric=frozenset({"in hand"}))


def limits(
    max_batches: Annotated[int | None, typer.Option(min=-1, help="unfinished batches; -1 = the default again")] = None,
    max_users: Annotated[int | None, typer.Option(min=-1, help="users of one batch; -1 = the default again")] = None,
    as_json: Json = False,
) -> None:
    """Show what the tenant may have in batches; with an option, change it."""
    found = run(_limits(max_batches, max_users), as_json=as_json)
    if as_json:
        print_json(asdict(found))
        return
    rows = [["unfinished batches", str(found.max_batches)], ["users of one batch", str(found.max_users)]]
    print_table("Limits of batch extractions", ["what", "at most"], rows, numeric=frozenset({"at most"}))


def webhook_secret(
    rotate: Annotated[bool, typer.Option("--rotate", help="make a new one; the old one still signs for a day")] = False,
    as_json: Json = False,
) -> None:
    """Print the secret under which the tenant's webhooks are signed."""
    secret = run(_webhook_secret(rotate=rotate), as_json=as_json)
    if as_json:
        print_json({"secret": secret})
    else:
        out.file.write(secret + "\n")


async def _work(*, until_idle: bool, worker_id: str | None) -> None:
    from serving.jobs.worker import Worker

    async with open_context(last_part="engine") as context:
        worker = Worker(worker_settings(context, worker_id=worker_id))
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, worker.stop.set)
        say("working; Ctrl-C stops when the users in hand have ended, and nothing is lost")
        await worker.run(until_idle=until_idle)


async def _workers() -> list[dict[str, Any]]:
    async with open_context() as context:
        return await Fleet(context.database).workers()


async def _limits(max_batches: int | None, max_users: int | None) -> Limits:
    async with open_context() as context:
        found = TenantLimits(context.database, batch_settings(context))
        tenant = context.settings.tenant
        if max_batches is None and max_users is None:
            return await found.get(tenant)
        return await found.put(tenant, max_batches=max_batches, max_users=max_users)


async def _webhook_secret(*, rotate: bool) -> str:
    async with open_context() as context:
        secrets = WebhookSecrets(context.database, batch_settings(context))
        return await (secrets.rotate if rotate else secrets.show)(context.settings.tenant)
