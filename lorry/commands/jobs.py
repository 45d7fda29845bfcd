"""`lorry jobs`: trainings that somebody, or a tenant's rules, has queued, and the workers that do them."""

from __future__ import annotations

import asyncio
import math
import signal
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from lorry.context import Context, open_context
from lorry.output import EXIT_CODES, Bar, counted, out, print_json, print_table, progress, run, say, shown_time
from lorry.settings import LorrySettings
from training.config import ResolvedConfig
from training.jobs.dispatch import Quota
from training.jobs.jobs import Event, Job, Jobs, Submission
from training.jobs.settings import WorkerSettings
from training.jobs.staleness import Rules
from training.jobs.states import ENDED, State

app = typer.Typer(help="Training jobs: submit, watch, steer, and work them off.", epilog=EXIT_CODES)
JobId = Annotated[str, typer.Argument(metavar="JOB", help="id, as `lorry jobs submit` printed it")]
Json = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]
_COLUMNS = ["job", "user", "state", "progress", "left", "trigger", "submitted", "what became of it"]
_POLL_SECONDS = 0.5


@app.callback(invoke_without_command=True)
def list_(
    context: typer.Context,
    user: Annotated[str | None, typer.Option(help="only this user's")] = None,
    state: Annotated[list[State] | None, typer.Option(help="only in this state; repeat it for several")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="how many, the latest first")] = 50,
    as_json: Json = False,
) -> None:
    """List the tenant's jobs, the latest first."""
    if context.invoked_subcommand is not None:
        return
    jobs = run(_list(user, state or [], limit), as_json=as_json)
    if as_json:
        print_json([asdict(job) for job in jobs])
    elif jobs:
        whole = frozenset({"job", "user", "state", "progress", "left", "submitted"})
        print_table("Training jobs", _COLUMNS, [_row(job) for job in jobs], whole=whole)
    else:
        out.print("No training job; queue one with `lorry jobs submit USER`.")


@app.command()
def submit(
    users: Annotated[list[str], typer.Argument(help="one or more user_ids")],
    config: Annotated[Path | None, typer.Option("--config", help="YAML file with the settings to change")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="one setting, such as steps=60")] = None,
    priority: Annotated[int, typer.Option(min=-1000, max=1000, help="higher ones come first")] = 0,
    why: Annotated[str, typer.Option(help="kept with the job")] = "",
    watch: Annotated[bool, typer.Option("--watch", help="wait until they have ended")] = False,
    as_json: Json = False,
) -> None:
    """Queue a training of each user; workers do them (`lorry jobs work`)."""
    jobs = run(_submit(users, config, set_ or [], priority=priority, why=why, watch=watch), as_json=as_json)
    if as_json:
        print_json([asdict(job) for job in jobs])
        return
    for job in jobs:
        out.print(f"{job.user_id}: {job.id} {_said(job)}", highlight=False, markup=False, soft_wrap=True)


@app.command()
def show(job_id: JobId, as_json: Json = False) -> None:
    """Show one job: its progress, when it will probably be done, what it cost, what became of it."""
    job, costs = run(_show(job_id), as_json=as_json)
    if as_json:
        print_json({**asdict(job), "costs": costs})
        return
    lines = [
        ("job", job.id),
        ("user", job.user_id),
        ("state", _said(job)),
        ("trigger", f"{job.trigger.value}{f': {job.why}' if job.why else ''}"),
        ("progress", f"{_progress(job)} {_left(job)}".strip()),
        ("worker", job.worker_id or "—"),
        ("submitted", shown_time(job.submitted_at)),
        ("ended", shown_time(job.ended_at)),
        ("cost", _spent(costs) or "—"),
    ]
    for name, value in lines:
        out.print(f"{name:<10} {value}", highlight=False, markup=False, soft_wrap=True)


@app.command()
def events(
    job_id: JobId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="go on until the job has ended")] = False,
    as_json: Json = False,
) -> None:
    """Print what has happened to a job."""
    found = run(_events(job_id, follow=follow and not as_json), as_json=as_json)
    if as_json:
        print_json([asdict(event) for event in found])


@app.command()
def cancel(job_id: JobId, as_json: Json = False) -> None:
    """End a job and remove what it has made."""
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
    """Try an ended job again; a failed one goes on after the last stage that it finished."""
    _report(run(_steer(job_id, "retry"), as_json=as_json), as_json=as_json)


@app.command()
def work(
    until_idle: Annotated[bool, typer.Option("--until-idle", help="end when no job is left to do")] = False,
    worker_id: Annotated[str | None, typer.Option(help="stable name of this worker; the host's when omitted")] = None,
) -> None:
    """Work jobs off until Ctrl-C; a worker that is stopped or killed loses nothing."""
    run(_work(until_idle=until_idle, worker_id=worker_id))


@app.command()
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


@app.command()
def costs(
    by: Annotated[str, typer.Option(help="tenant, user_id, job_id or kind (the stage)")] = "user_id",
    days: Annotated[float, typer.Option(min=0, help="of the last so many days")] = 30,
    as_json: Json = False,
) -> None:
    """Sum tokens, dollars and device seconds; estimates and what was spent apart."""
    found = run(_costs(by, days), as_json=as_json)
    if as_json:
        print_json(found)
        return
    numbers = ["input tokens", "output tokens", "trained tokens", "dollars", "device seconds"]
    rows = [
        [
            str(each["of"]),
            "estimated" if each["is_estimate"] else "spent",
            *(f"{each[name.replace(' ', '_')]:.{4 if name == 'dollars' else 0}f}" for name in numbers),
        ]
        for each in found
    ]
    print_table(f"Costs of {days:g} days", [by, "", *numbers], rows, numeric=frozenset(numbers))


@app.command()
def quota(
    max_running: Annotated[int | None, typer.Option(help="jobs at once; -1 = without limit")] = None,
    max_daily: Annotated[int | None, typer.Option(help="jobs submitted in 24 hours; -1 = without limit")] = None,
    max_monthly_dollars: Annotated[
        float | None, typer.Option(help="paid to question writers in 30 days; -1 = without limit")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what the tenant may use; change what is given."""
    given = {"max_running": max_running, "max_daily": max_daily, "max_monthly_dollars": max_monthly_dollars}
    found = run(_quota({name: value for name, value in given.items() if value is not None}), as_json=as_json)
    if as_json:
        print_json(asdict(found))
        return
    for name, value in asdict(found).items():
        out.print(f"{name:<20} {'without limit' if value is None else value}", highlight=False)


@app.command()
def rules(
    set_: Annotated[list[str] | None, typer.Option("--set", help="one rule: enabled=true, or new_words=")] = None,
    as_json: Json = False,
) -> None:
    """Show when users are trained without anybody asking; change what is given (an empty value = never)."""
    found = run(_rules(set_ or []), as_json=as_json)
    if as_json:
        print_json(asdict(found))
        return
    for name, value in asdict(found).items():
        out.print(f"{name:<14} {'never' if value is None else value}", highlight=False)


# ----- what the commands do


async def _list(user: str | None, states: list[State], limit: int) -> list[Job]:
    async with open_context() as context:
        return await Jobs(context.database).list(tenant=context.settings.tenant, user=user, states=states, limit=limit)


async def _submit(
    users: list[str], config: Path | None, settings: list[str], *, priority: int, why: str, watch: bool
) -> list[Job]:
    from lorry.pipeline import resolve_config

    resolved = resolve_config(config, settings)
    async with open_context() as context:
        jobs = Jobs(context.database)
        queued = [
            await jobs.submit(
                Submission(
                    tenant=context.settings.tenant,
                    user=user,
                    base=base_name(context.settings),
                    settings=chosen_settings(resolved),
                    priority=priority,
                    why=why,
                )
            )
            for user in users
        ]
        return await _wait(context, queued) if watch else queued


async def _wait(context: Context, queued: list[Job]) -> list[Job]:
    jobs = Jobs(context.database)
    if not any(each["state"] == "alive" for each in await jobs.workers()):
        say("no worker is alive; start one with `lorry jobs work`")
    with progress() as bars:
        shown = {job.id: Bar(bars, f"training {job.user_id}") for job in queued}
        latest = {job.id: job for job in queued}
        while any(not job.ended for job in latest.values()):
            await asyncio.sleep(_POLL_SECONDS)
            for job_id in [each.id for each in latest.values() if not each.ended]:
                job = latest[job_id] = await jobs.get(job_id)
                share = (job.progress or {}).get("share", 0.0)
                shown[job_id](round(100 * share), 100, f"{job.state.value} {(job.progress or {}).get('stage', '')}")
        for job in latest.values():
            shown[job.id].finish(_said(job))
    return list(latest.values())


async def _show(job_id: str) -> tuple[Job, list[dict[str, Any]]]:
    async with open_context() as context:
        jobs = Jobs(context.database)
        job = await jobs.get(job_id, tenant=context.settings.tenant)
        return job, await jobs.costs(job_id=job.id, by="kind", days=36_500)


async def _events(job_id: str, *, follow: bool) -> list[Event]:
    async with open_context() as context:
        jobs, tenant = Jobs(context.database), context.settings.tenant
        found: list[Event] = []
        while True:
            job = await jobs.get(job_id, tenant=tenant)
            while new := await jobs.events(job_id, after=found[-1].id if found else 0):
                found.extend(new)
                for event in new:
                    say(f"{shown_time(event.at)}  {_event(event)}")
            if job.ended or not follow:
                return found
            await asyncio.sleep(_POLL_SECONDS)


async def _steer(job_id: str, verb: str) -> Job:
    async with open_context() as context:
        jobs = Jobs(context.database)
        steer = {"cancel": jobs.cancel, "pause": jobs.pause, "resume": jobs.resume, "retry": jobs.retry}[verb]
        return await steer(job_id, tenant=context.settings.tenant)


async def _work(*, until_idle: bool, worker_id: str | None) -> None:
    from training.jobs.worker import Worker

    async with open_context() as context:
        worker = Worker(worker_settings(context, worker_id=worker_id))
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, worker.stop.set)
        say("working; Ctrl-C stops after the current step, and nothing is lost")
        await worker.run(until_idle=until_idle)


async def _workers() -> list[dict[str, Any]]:
    async with open_context() as context:
        return await Jobs(context.database).workers()


async def _costs(by: str, days: float) -> list[dict[str, Any]]:
    async with open_context() as context:
        return await Jobs(context.database).costs(tenant=context.settings.tenant, by=by, days=days)


async def _quota(given: dict[str, float]) -> Quota:
    async with open_context() as context:
        jobs, tenant = Jobs(context.database), context.settings.tenant
        found = await jobs.quota(tenant)
        if not given:
            return found
        limits: dict[str, Any] = {name: None if value == -1 else value for name, value in given.items()}
        return await jobs.put_quota(tenant, replace(found, **limits))


async def _rules(settings: list[str]) -> Rules:
    async with open_context() as context:
        jobs, tenant = Jobs(context.database), context.settings.tenant
        found = await jobs.rules(tenant)
        return await jobs.put_rules(tenant, parse_rules(found, settings)) if settings else found


# ----- values


def base_name(settings: LorrySettings) -> str:
    """Return how jobs name the base: a directory as a whole path, so that it means the same to every worker here."""
    path = Path(settings.base_model).expanduser()
    return str(path.resolve()) if path.is_dir() else settings.base_model


def chosen_settings(resolved: ResolvedConfig) -> dict[str, Any]:
    """Return, by key, the settings that a person chose; the rest is every worker's own default."""
    values = {
        **resolved.training.model_dump(mode="json"),
        **{f"dataset.{key}": value for key, value in resolved.dataset.model_dump(mode="json").items()},
    }
    return {key: values[key] for key, origin in resolved.origins.items() if origin in {"file", "argument"}}


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
        "log_level": own.log_level,
    }
    if worker_id is not None:
        values["worker_id"] = worker_id
    return WorkerSettings(**values)


def parse_rules(rules: Rules, settings: list[str]) -> Rules:
    """Return the rules with ``key=value`` changes.

    Raises:
        JobRequestInvalid: naming the rule and the reason.
    """
    from training.jobs.errors import JobRequestInvalid

    kinds: dict[str, Any] = {
        **dict.fromkeys(("enabled", "base_change"), _truth),
        **dict.fromkeys(("min_words", "new_words", "priority"), int),
        **dict.fromkeys(("new_share", "max_age_days"), float),
        "schedule": str,
    }
    optional = {"new_words", "max_age_days", "schedule"}
    for setting in settings:
        key, separator, value = setting.partition("=")
        if not separator or key not in kinds:
            raise JobRequestInvalid(f"{setting!r} must be RULE=VALUE with one of {', '.join(kinds)}", field=key)
        if not value and key not in optional:
            raise JobRequestInvalid(f"{key} needs a value", field=key)
        try:
            parsed = kinds[key](value) if value else None
        except ValueError as exc:
            raise JobRequestInvalid(f"{key}: {value!r} is not a value for it", field=key) from exc
        if isinstance(parsed, float) and not math.isfinite(parsed):
            raise JobRequestInvalid(f"{key}: {value!r} is not a number", field=key)
        changed: dict[str, Any] = {key: parsed}
        rules = replace(rules, **changed)
    return rules.check()


def _truth(value: str) -> bool:
    known = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if value.lower() not in known:
        raise ValueError(value)
    return known[value.lower()]


# ----- words


def _report(job: Job, *, as_json: bool) -> None:
    if as_json:
        print_json(asdict(job))
    else:
        out.print(f"{job.id}: {_said(job)}", highlight=False, markup=False, soft_wrap=True)


def _row(job: Job) -> list[str]:
    return [
        job.id,
        job.user_id,
        job.state.value,
        _progress(job),
        _left(job),
        job.trigger.value,
        shown_time(job.submitted_at),
        _became(job),
    ]


def _said(job: Job) -> str:
    became = _became(job)
    wish = "" if job.wish.value == "none" else f", will be {job.wish.value}d" if job.wish == "pause" else ", ending"
    return f"{job.state.value}{wish}{f' ({became})' if became else ''}"


def _became(job: Job) -> str:
    if job.outcome is not None:
        live = "live" if job.outcome["live"] else "kept but not live: " + "; ".join(job.outcome["reasons"])
        return f"version {job.outcome['version']}, {live}"
    if job.error is not None:
        again = "" if job.state in ENDED else f", tried {counted(job.attempts, 'time')}"
        return f"{job.error['message']}{again}"
    return ""


def _progress(job: Job) -> str:
    if job.progress is None or job.state in ENDED:
        return "—"
    return f"{job.progress['stage']} {100 * job.progress['share']:.0f} %"


def _left(job: Job) -> str:
    seconds = (job.progress or {}).get("eta_seconds")
    if seconds is None or job.state is not State.RUNNING:
        return ""
    return f"{timedelta(seconds=round(seconds))}"


def _spent(costs: list[dict[str, Any]]) -> str:
    spent = [each for each in costs if not each["is_estimate"]]
    if not spent:
        return ""
    dollars, seconds = sum(each["dollars"] for each in spent), sum(each["device_seconds"] for each in spent)
    return f"{dollars:.4f} dollars, {seconds:.0f} device seconds"


def _event(event: Event) -> str:
    detail = {key: value for key, value in event.detail.items() if value not in (None, "")}
    return f"{event.kind} {' '.join(f'{key}={value}' for key, value in detail.items())}".strip()
