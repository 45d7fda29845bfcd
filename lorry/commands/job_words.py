"""How a training job is said in words, on a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

from kit.words import counted, tallied
from lorry.output import shown_time
from training.jobs.job import Event, Job
from training.jobs.states import ENDED, State, Wish
from training.jobs.words import stage_done

COLUMNS = ["job", "user", "state", "how far"]
_WAITS = "no worker holds it; the next one that is free goes on with it"
_REVIEW = "written; `lorry review {user} --job {job}`, then `lorry jobs resume {job}`"
_WISHES = {Wish.PAUSE: ", will pause at its next step", Wish.CANCEL: ", ending"}


def row(job: Job) -> list[str]:
    """Return a job as a row of a table with `COLUMNS`."""
    return [job.id, job.user_id, job.state.value, _how_far(job)]


def lines(job: Job, costs: Sequence[dict[str, Any]], dataset: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """Return everything about one job that people ask for, as (name, value); `dataset` is what is kept of its."""
    return [
        ("job", job.id),
        ("user", job.user_id),
        ("state", said(job)),
        ("trigger", f"{job.trigger.value}{f': {job.why}' if job.why else ''}"),
        ("base", job.base),
        ("settings", " ".join(f"{key}={value}" for key, value in sorted(job.settings.items())) or "defaults"),
        ("priority", str(job.priority)),
        ("progress", f"{progress(job)}{f', {left(job)} left' if left(job) else ''}"),
        ("worker", job.worker_id or "—"),
        ("submitted", shown_time(job.submitted_at)),
        ("started", shown_time(job.started_at)),
        ("ended", shown_time(job.ended_at)),
        ("estimated", amount(costs, estimate=True) or "—"),
        ("spent", amount(costs, estimate=False) or "—"),
        *(_said_of_dataset(dataset) if dataset else ()),
    ]


def _said_of_dataset(dataset: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Say what a job is trained on, and what was found in it."""
    counts, quality = dataset["counts"], dataset.get("quality")  # jobs of earlier releases have no quality
    examined = f" of {quality['examined']}" if quality else ""
    yield "dataset", f"{counts['train']}{examined} examples to train on, {counts['held_out']} held-out replies"
    yield "redacted", tallied(dataset["redacted"])
    if not quality:
        return
    sections = [each for each in quality["sections"] if each["count"]]
    yield "dropped", tallied({each["problem"]: each["dropped"] for each in sections if each["dropped"]})
    yield "to look at", tallied({each["problem"]: each["count"] for each in sections if each["action"] == "warn"})
    yield "platitudes", _said_of_base(quality["nats"], quality["unscored"])


def _said_of_base(nats: Mapping[str, int], unscored: int) -> str:
    """Say how likely the base gives the examples by itself."""
    if not nats:
        return "the base model was not asked"
    long = f"; {unscored} too long for it" if unscored else ""
    upwards = sorted(nats, key=lambda name: (float(name.split()[1]), name))  # the database keeps no order of keys
    return f"nats a token under the base: {tallied({name: nats[name] for name in upwards if nats[name]})}{long}"


def _how_far(job: Job) -> str:
    """Return progress, or what came out, in so few words that a table of 80 columns holds them."""
    if job.outcome is not None:
        return f"version {job.outcome['version']}, {'live' if job.outcome['live'] else 'not live'}"
    if job.error is not None:
        return str(job.error["code"])
    return f"{progress(job)}{f', {left(job)} left' if left(job) else ''}"


def said(job: Job) -> str:
    """Return the state, what was asked of the job, and what became of it."""
    told = became(job) or (_WAITS if job.state is State.RUNNING and job.worker_id is None else "")
    return f"{job.state.value}{_WISHES.get(job.wish, '')}{f' ({told})' if told else ''}"


def became(job: Job) -> str:
    """Return how a job ended, why it is tried again, or what it waits for; empty before any of these."""
    if job.waits_for_review:
        return _REVIEW.format(user=job.user_id, job=job.id)
    if job.outcome is not None:
        why = job.outcome.get("failed") or job.outcome["reasons"]  # jobs of earlier releases have only all reasons
        live = "live" if job.outcome["live"] else "kept but not live: " + "; ".join(why)
        return f"version {job.outcome['version']}, {live}"
    if job.error is not None:
        again = "" if job.state in ENDED else f", tried {counted(job.attempts, 'time')}"
        return f"{job.error['message']}{again}"
    return ""


def progress(job: Job) -> str:
    """Return the stage and the share of the whole job."""
    if job.progress is None or job.state in ENDED:
        return "—"
    return f"{job.progress['stage']} {100 * job.progress['share']:.0f} %"


def left(job: Job) -> str:
    """Return how long it will take yet, or its stage at least; empty when that cannot be told."""
    told = job.progress or {}
    whole, stage = told.get("eta_seconds"), told.get("stage_eta_seconds")
    seconds = stage if whole is None else whole
    if seconds is None or job.state is not State.RUNNING or job.worker_id is None:
        return ""
    return f"{'at least ' if whole is None else ''}{timedelta(seconds=round(seconds))}"


def amount(costs: Sequence[dict[str, Any]], *, estimate: bool) -> str:
    """Return the sum of what was estimated, or spent; empty when nothing was."""
    rows = [each for each in costs if each["is_estimate"] is estimate]
    if not rows:
        return ""
    dollars, seconds = sum(each["dollars"] for each in rows), sum(each["device_seconds"] for each in rows)
    tokens = sum(each["input_tokens"] + each["output_tokens"] for each in rows)
    price = f"for {dollars:.4f} dollars" if dollars else "at no known price"
    bought = f"{tokens:.0f} tokens {price}" if tokens or dollars else "nothing to pay"
    unknown = "device time not known before a first training of this base is through" if estimate else "no device time"
    return f"{bought}, {f'{seconds:.0f} device seconds' if seconds else unknown}"


def event(told: Event) -> str:
    """Return an event as a line, an error by its message."""
    if told.kind == "stage finished":
        return (
            f"{shown_time(told.at, seconds=True)}  {stage_done(told.detail['stage'], seconds=told.detail['seconds'])}"
        )
    detail = {key: value for key, value in told.detail.items() if value not in (None, "")}
    error, why = detail.pop("error", None), detail.pop("why", None)
    facts = [f"{key}={value}" for key, value in detail.items()]
    message = [f"({text})" for text in ((error or {}).get("message"), why) if text]
    return " ".join([shown_time(told.at, seconds=True) + " ", told.kind, *facts, *message])
