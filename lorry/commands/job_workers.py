"""`lorry jobs work | workers`: the processes that work trainings off."""

from __future__ import annotations

import asyncio
import signal
from typing import Annotated, Any

import typer

from lorry.commands.job_settings import base_name
from lorry.context import Context, open_context, tell
from lorry.output import print_json, print_table, run, say, shown_time
from lorry.patience import kept
from training.jobs.fleet.fleet import Fleet
from training.jobs.settings import WorkerSettings

Json = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]


def work(
    until_idle: Annotated[bool, typer.Option("--until-idle", help="end when no job is left to do")] = False,
    worker_id: Annotated[str | None, typer.Option(help="stable name of this worker; the host's when omitted")] = None,
) -> None:
    """Work jobs off until Ctrl-C; a worker that is stopped or killed loses nothing.

    Standard error gets a line for each stage that is done: the job's id, how long it took, what comes next.
    """
    run(_work(until_idle=until_idle, worker_id=worker_id))


def workers(as_json: Json = False) -> None:
    """List workers: alive, lapsed (silent for longer than their lease) or left."""
    found = run(_workers(), as_json=as_json)
    if as_json:
        print_json(found)
        return
    rows = [
        [each["worker_id"], each["state"], each["host"], str(each["jobs"]), shown_time(each["heard_at"])]
        for each in found
    ]
    columns = ["worker", "state", "host", "jobs", "heard"]
    print_table("Training workers", columns, rows, numeric=frozenset({"jobs"}))


async def _work(*, until_idle: bool, worker_id: str | None) -> None:
    from training.jobs.worker import Worker

    async with open_context() as context:
        worker = Worker(worker_settings(context, worker_id=worker_id), tell=tell)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, worker.stop.set)
        say("working; Ctrl-C stops after the current step, and nothing is lost")
        async with kept(context):
            await worker.run(until_idle=until_idle)


async def _workers() -> list[dict[str, Any]]:
    async with open_context() as context:
        return await Fleet(context.database).workers()


def worker_settings(context: Context, *, worker_id: str | None = None) -> WorkerSettings:
    """Return the settings of a worker on this machine, with its files in the home."""
    plan, own = context.plan, context.settings
    values: dict[str, Any] = {
        "database_url": plan.database.database_url,
        "registry_url": plan.registry_url,
        "registry_token": plan.registry_token,
        "training_base": base_name(own),
        "training_directory": plan.home.folder("training"),
        "training_bases_directory": plan.home.folder("bases"),
        "training_device": own.device,
        "training_threads": own.threads,
        "training_gate_file": own.training_gate_file,
        "log_level": own.log_level,
    }
    if worker_id is not None:
        values["worker_id"] = worker_id
    return WorkerSettings(**values)
