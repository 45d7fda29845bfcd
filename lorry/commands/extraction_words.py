"""How a batch extraction is said in words, on a terminal."""

from __future__ import annotations

from datetime import timedelta

from kit.words import counted
from lorry.output import shown_time
from serving.jobs.batch import Batch
from serving.jobs.progress import Progress
from serving.jobs.states import BatchState, DeliveryState

COLUMNS = ["batch", "state", "users", "done", "failed", "left", "submitted"]


def row(batch: Batch) -> list[str]:
    """Return a batch as a row of a table with `COLUMNS`."""
    found = batch.progress
    return [
        batch.id,
        batch.state.value,
        str(found.users),
        str(found.done),
        str(found.failed),
        left(batch) or "—",
        shown_time(batch.submitted_at),
    ]


def lines(batch: Batch) -> list[tuple[str, str]]:
    """Return everything about one batch that people ask for, as (name, value)."""
    found = batch.progress
    rate = f"{found.users_per_minute:.1f} users a minute" if found.users_per_minute is not None else "not known yet"
    return [
        ("batch", batch.id),
        ("state", said(batch)),
        ("of", asked(batch)),
        ("users", counts(found)),
        ("failures", ", ".join(f"{count} {reason}" for reason, count in batch.failures.items()) or "—"),
        ("rate", rate if batch.state is BatchState.RUNNING else "—"),
        ("left", left(batch) or "—"),
        ("webhook", webhook(batch)),
        ("submitted", shown_time(batch.submitted_at)),
        ("ended", shown_time(batch.ended_at)),
    ]


def said(batch: Batch) -> str:
    """Return the state, and why when the batch could not be planned."""
    return batch.state.value + (f" ({batch.error['message']})" if batch.error else "")


def asked(batch: Batch) -> str:
    """Return which users the batch is about."""
    who = "everybody with a live adapter" if batch.selection["everybody"] else "a list of users"
    if batch.selection["only"] != "stale":
        return who
    age = batch.selection["max_age_days"]
    return f"{who}, only whose profile is not by the live version" + (f" or older than {age:g} days" if age else "")


def counts(found: Progress) -> str:
    """Return how many users are where."""
    parts = {
        "done": found.done,
        "in hand": found.in_hand,
        "waiting": found.waiting,
        "failed": found.failed,
        "skipped": found.skipped,
        "canceled": found.canceled,
    }
    told = ", ".join(f"{count} {name}" for name, count in parts.items() if count)
    return f"{counted(found.users, 'user')}: {told}" if told else counted(found.users, "user")


def left(batch: Batch) -> str:
    """Return how long it will take yet; empty when that cannot be told."""
    seconds = batch.progress.eta_seconds
    return "" if seconds is None or batch.ended else f"{timedelta(seconds=round(seconds))}"


def note(batch: Batch) -> str:
    """Return what stands beside a progress bar."""
    found = batch.progress
    parts = [batch.state.value, f"{found.in_hand} in hand"]
    parts += [f"{found.failed} failed"] if found.failed else []
    parts += [f"{left(batch)} left"] if left(batch) else []
    return ", ".join(parts)


def webhook(batch: Batch) -> str:
    """Return what became of the message that the batch has ended."""
    found = batch.webhook
    if found is None:
        return "—"
    told = {
        None: "waits for the end",
        DeliveryState.PENDING: f"tried {counted(found.attempts, 'time')}",
        DeliveryState.DELIVERED: f"delivered at try {found.attempts}",
        DeliveryState.GIVEN_UP: f"given up after {counted(found.attempts, 'attempt')}",
    }[found.state]
    return f"{found.url}, {told}" + (f" ({found.problem})" if found.problem else "")
