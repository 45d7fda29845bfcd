"""`lorry jobs`: trainings that somebody, or a tenant's rules, has queued, and the workers that do them."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from lorry.commands import job_service, job_tenancy, job_words, job_workers
from lorry.commands.job_settings import base_name, chosen_settings
from lorry.context import Context, open_context
from lorry.output import Bar, out, print_json, print_table, progress, run, say, to_json
from lorry.patience import kept, patiently
from training.jobs.costs.costs import Costs
from training.jobs.fleet.fleet import Fleet
from training.jobs.job import Event, Job, Submission
from training.jobs.jobs import Jobs
from training.jobs.states import State

app = typer.Typer()
JobId = Annotated[str, typer.Argument(metavar="JOB", help="id, as `lorry jobs submit` printed it")]
Json = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]
_POLL_SECONDS = 0.5
_EVER_DAYS = 36_500
_LATER = "nothing of the job is lost: look again with `lorry jobs events JOB --follow` when it does"


@app.callback(invoke_without_command=True)
def list_(
    context: typer.Context,
    user: Annotated[str | None, typer.Option(help="only this user's")] = None,
    state: Annotated[list[State] | None, typer.Option(help="only in this state; repeat it for several")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="how many, the latest first")] = 50,
    as_json: Json = False,
) -> None:
    """Training jobs: without a command, list the tenant's, the latest first.

    A first one: `lorry jobs submit USER`, then `lorry jobs work --until-idle`.
    """
    if context.invoked_subcommand is not None:
        return
    jobs = run(_list(user, state or [], limit), as_json=as_json)
    if as_json:
        print_json([asdict(job) for job in jobs])
    elif jobs:
        whole = frozenset({"job", "user", "state"})
        print_table("Training jobs", job_words.COLUMNS, [job_words.row(job) for job in jobs], whole=whole)
    elif user or state:
        out.print("No such training job.")
    else:
        out.print("No training job; queue one with `lorry jobs submit USER`.")


@app.command()
def submit(
    users: Annotated[list[str], typer.Argument(help="one or more user_ids; all are queued, or none")],
    config: Annotated[Path | None, typer.Option("--config", help="YAML file with the settings to change")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="one setting, such as steps=60")] = None,
    priority: Annotated[int, typer.Option(min=-1000, max=1000, help="higher ones come first")] = 0,
    why: Annotated[str, typer.Option(help="kept with the job")] = "",
    review: Annotated[
        bool,
        typer.Option("--review", help="wait before the training until `lorry review --job` and `lorry jobs resume`"),
    ] = False,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="wait until they have ended; exit code 1 if one failed, 4 if one was refused"),
    ] = False,
    as_json: Json = False,
) -> None:
    """Queue a training of each user; workers do them (`lorry jobs work`)."""
    jobs = run(
        _submit(users, config, set_ or [], priority=priority, why=why, review=review, watch=watch), as_json=as_json
    )
    if as_json:
        print_json([asdict(job) for job in jobs])
    else:
        for job in jobs:
            _tell(f"{job.user_id}: {job.id} {job_words.said(job)}")
    if code := _ended_with(jobs) if watch else 0:
        raise typer.Exit(code)


def _ended_with(jobs: list[Job]) -> int:
    """Return the exit code that says how watched jobs ended."""
    if any(job.state is State.FAILED for job in jobs):
        return 1
    return 4 if any(job.state is not State.SUCCEEDED for job in jobs) else 0


@app.command()
def show(job_id: JobId, as_json: Json = False) -> None:
    """Show one job: its progress, when it will be done, what it cost, what is wrong with its examples, how it ended."""
    job, costs, dataset = run(_show(job_id), as_json=as_json)
    if as_json:
        print_json({**asdict(job), "costs": costs, "dataset": dataset})
        return
    for name, value in job_words.lines(job, costs, dataset):
        _tell(f"{name:<10} {value}")


@app.command()
def events(
    job_id: JobId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="go on until the job has ended")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="print a JSON list; with --follow, one object a line")
    ] = False,
) -> None:
    """Print what has happened to a job, in order."""
    found = run(_events(job_id, follow=follow, as_json=as_json), as_json=as_json)
    if as_json and not follow:
        print_json([asdict(event) for event in found])


@app.command()
def cancel(job_id: JobId, as_json: Json = False) -> None:
    """End a job and remove what it has made. One that runs ends at its next step."""
    _report(run(_steer(job_id, "cancel"), as_json=as_json), as_json=as_json)


@app.command()
def pause(job_id: JobId, as_json: Json = False) -> None:
    """Have a job wait; a training leaves a checkpoint and goes on from it."""
    _report(run(_steer(job_id, "pause"), as_json=as_json), as_json=as_json)


@app.command()
def resume(job_id: JobId, as_json: Json = False) -> None:
    """Have a paused job go on."""
    _report(run(_steer(job_id, "resume"), as_json=as_json), as_json=as_json)


@app.command()
def retry(job_id: JobId, as_json: Json = False) -> None:
    """Try an ended job again; a failed one goes on after the last stage that it finished, others begin anew."""
    _report(run(_steer(job_id, "retry"), as_json=as_json), as_json=as_json)


app.command()(job_workers.work)
app.command()(job_service.serve)
app.command()(job_workers.workers)
app.command()(job_tenancy.costs)
app.command()(job_tenancy.quota)
app.command()(job_tenancy.rules)


def _tell(line: str) -> None:
    out.print(line, highlight=False, markup=False, soft_wrap=True)


def _report(job: Job, *, as_json: bool) -> None:
    if as_json:
        print_json(asdict(job))
    else:
        _tell(f"{job.id}: {job_words.said(job)}")


async def _list(user: str | None, states: list[State], limit: int) -> list[Job]:
    async with open_context() as context:
        return await Jobs(context.database).list(tenant=context.settings.tenant, user=user, states=states, limit=limit)


async def _submit(
    users: list[str], config: Path | None, settings: list[str], *, priority: int, why: str, review: bool, watch: bool
) -> list[Job]:
    from lorry.pipeline import resolve_config

    resolved = resolve_config(config, settings)
    async with open_context() as context:
        submissions = [
            Submission(
                tenant=context.settings.tenant,
                user=user,
                base=base_name(context.settings),
                settings=chosen_settings(resolved),
                priority=priority,
                why=why,
                review=review,
            )
            for user in users
        ]
        queued = await Jobs(context.database).submit_all(submissions)
        if not any(each["state"] == "alive" for each in await Fleet(context.database).workers()):
            say("no worker is alive; `lorry jobs work` starts one and does what is queued")
        return await _wait(context, queued) if watch else queued


async def _wait(context: Context, queued: list[Job]) -> list[Job]:
    jobs = Jobs(context.database)
    with progress() as bars:
        shown = {job.id: Bar(bars, f"training {job.user_id}") for job in queued}
        latest = {job.id: job for job in queued}
        async with kept(context):
            while any(not job.ended for job in latest.values()):
                await asyncio.sleep(_POLL_SECONDS)
                for job_id in [each.id for each in latest.values() if not each.ended]:
                    job = latest[job_id] = await patiently(partial(jobs.get, job_id), then=_LATER)
                    share = (job.progress or {}).get("share", 0.0)
                    stage = (job.progress or {}).get("stage", "")
                    shown[job_id](round(100 * share), 100, f"{job.state.value} {stage}")
        for job in latest.values():
            shown[job.id].finish(job_words.said(job))
    return list(latest.values())


async def _show(job_id: str) -> tuple[Job, list[dict[str, Any]], dict[str, Any] | None]:
    async with open_context() as context:
        jobs = Jobs(context.database)
        job = await jobs.get(job_id, tenant=context.settings.tenant)
        costs = await Costs(context.database).sums(job_id=job.id, by="kind", days=_EVER_DAYS)
        return job, costs, await jobs.dataset(job.id)


async def _events(job_id: str, *, follow: bool, as_json: bool) -> list[Event]:
    """Return the job's events so far; with `follow`, print them and wait for more until it has ended."""
    async with open_context() as context:
        jobs, found = Jobs(context.database), list[Event]()

        async def look() -> tuple[Job, list[Event]]:
            """Return the job as it was before its newest events: one that has ended has no further ones."""
            job, new = await jobs.get(job_id, tenant=context.settings.tenant), list[Event]()
            last = found[-1].id if found else 0
            while more := await jobs.events(job_id, after=new[-1].id if new else last):
                new.extend(more)
            return job, new

        async with kept(context):
            while True:
                job, new = await (patiently(look, then=_LATER) if follow else look())
                found.extend(new)
                for event in new:
                    if not as_json:
                        _tell(job_words.event(event))
                    elif follow:
                        _tell(to_json(asdict(event), indent=None))
                if job.ended or not follow:
                    return found
                await asyncio.sleep(_POLL_SECONDS)


async def _steer(job_id: str, verb: str) -> Job:
    async with open_context() as context:
        jobs = Jobs(context.database)
        steer = {"cancel": jobs.cancel, "pause": jobs.pause, "resume": jobs.resume, "retry": jobs.retry}[verb]
        return await steer(job_id, tenant=context.settings.tenant)
