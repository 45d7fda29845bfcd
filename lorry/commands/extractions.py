"""`lorry extractions`: profiles of many users as one job: submitted, followed, steered, read."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, TextIO

import typer

from lorry.commands import extraction_operations, extraction_words
from lorry.commands.extraction_settings import batch_settings
from lorry.context import Context, open_context
from lorry.errors import FileUnreadable
from lorry.output import EXIT_CODES, Bar, out, print_json, print_table, progress, run, say, shown
from serving.jobs.batch import Batch, Submission
from serving.jobs.batches import Batches
from serving.jobs.fleet.fleet import Fleet
from serving.jobs.results import Results, to_line
from serving.jobs.selection import Only, Selection, read_lines
from serving.jobs.states import BatchState
from serving.jobs.vault import Vault

app = typer.Typer(epilog=EXIT_CODES)
BatchId = Annotated[str, typer.Argument(metavar="BATCH", help="id, as `lorry extractions submit` printed it")]
Json = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]
_POLL_SECONDS = 0.5


@app.callback(invoke_without_command=True)
def list_(
    context: typer.Context,
    state: Annotated[list[BatchState] | None, typer.Option(help="only in this state; repeat it for several")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="how many, the latest first")] = 50,
    as_json: Json = False,
) -> None:
    """Batch extractions: without a command, list the tenant's, the latest first.

    A first one: `lorry extractions submit --everybody --follow`, while `lorry up` runs.
    """
    if context.invoked_subcommand is not None:
        return
    batches = run(_list(state or [], limit), as_json=as_json)
    if as_json:
        print_json([asdict(batch) for batch in batches])
    elif batches:
        rows = [extraction_words.row(batch) for batch in batches]
        numeric = frozenset({"users", "done", "failed"})
        print_table("Batch extractions", extraction_words.COLUMNS, rows, numeric=numeric, whole=frozenset({"batch"}))
    else:
        out.print("No batch extraction; queue one with `lorry extractions submit`.")


@app.command()
def submit(
    users: Annotated[list[str] | None, typer.Argument(help="user_ids")] = None,
    file: Annotated[
        Path | None, typer.Option(help="a user_id a line, bare or as an object's `user_id`; - for standard input")
    ] = None,
    everybody: Annotated[bool, typer.Option("--everybody", help="everybody with a live adapter")] = False,
    stale: Annotated[bool, typer.Option("--stale", help="only whose profile is not by the live version")] = False,
    max_age_days: Annotated[float | None, typer.Option(min=0, help="with --stale: or older than so")] = None,
    webhook: Annotated[str | None, typer.Option(help="https URL that is told when the batch has ended")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="show progress until it has ended")] = False,
    as_json: Json = False,
) -> None:
    """Queue a batch: users by name, from a file, or everybody; workers do it (`lorry up` runs one)."""
    named = None if users is None and file is None else [*(users or []), *_read(file)]
    selection = _selection(named, everybody=everybody, only="stale" if stale else "all", max_age_days=max_age_days)
    batch = run(_submit(selection, webhook, follow=follow), as_json=as_json)
    if as_json:
        print_json(asdict(batch))
    elif batch.ended:
        _tell(batch)
    else:
        out.print(f"{batch.id}: {extraction_words.said(batch)}", highlight=False, soft_wrap=True)


@app.command()
def show(batch_id: BatchId, as_json: Json = False) -> None:
    """Show one batch: how far it is, how long it will take, who failed and why, by number."""
    batch = run(_steer(batch_id, "get"), as_json=as_json)
    if as_json:
        print_json(asdict(batch))
    else:
        _tell(batch)


@app.command()
def follow(batch_id: BatchId, as_json: Json = False) -> None:
    """Show progress until the batch has ended."""
    batch = run(_follow_one(batch_id), as_json=as_json)
    if as_json:
        print_json(asdict(batch))
    else:
        _tell(batch)


@app.command()
def results(
    batch_id: BatchId,
    after: Annotated[int, typer.Option(min=0, help="`sequence` of the last line that you have")] = 0,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="go on until the batch has ended")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="file to write; standard output else")] = None,
) -> None:
    """Print results as lines of JSON, in the order in which users ended, also while the batch runs."""
    run(_results(batch_id, after=after, follow=follow, output=output))


@app.command()
def pause(batch_id: BatchId, as_json: Json = False) -> None:
    """Have no more users taken in hand; those who are come to their end."""
    _report(run(_steer(batch_id, "pause"), as_json=as_json), as_json=as_json)


@app.command()
def resume(batch_id: BatchId, as_json: Json = False) -> None:
    """Have a paused batch go on."""
    _report(run(_steer(batch_id, "resume"), as_json=as_json), as_json=as_json)


@app.command()
def cancel(batch_id: BatchId, as_json: Json = False) -> None:
    """End a batch now; what was delivered stays."""
    _report(run(_steer(batch_id, "cancel"), as_json=as_json), as_json=as_json)


app.command()(extraction_operations.work)
app.command()(extraction_operations.workers)
app.command()(extraction_operations.limits)
app.command("webhook-secret")(extraction_operations.webhook_secret)


def _tell(batch: Batch) -> None:
    for name, value in extraction_words.lines(batch):
        out.print(f"{name:<10} {shown(value)}", highlight=False, markup=False, soft_wrap=True)


def _report(batch: Batch, *, as_json: bool) -> None:
    if as_json:
        print_json(asdict(batch))
    else:
        told = f"{batch.id}: {extraction_words.said(batch)}, {extraction_words.counts(batch.progress)}"
        out.print(told, highlight=False, markup=False, soft_wrap=True)


def _read(file: Path | None) -> list[str]:
    """Return the users that a file's lines name."""

    async def read() -> list[str]:
        if file is None:
            return []
        try:
            text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as exc:
            why = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8"
            raise FileUnreadable(f"{file} cannot be read: {why}", field=str(file)) from exc
        return list(read_lines(text.splitlines()))

    return run(read())


def _selection(users: list[str] | None, *, everybody: bool, only: Only, max_age_days: float | None) -> Selection:
    async def select() -> Selection:
        return Selection.of(users=users, everybody=everybody, only=only, max_age_days=max_age_days)

    return run(select())


async def _list(states: list[BatchState], limit: int) -> list[Batch]:
    async with open_context() as context:
        return await _batches(context).list(tenant=context.settings.tenant, states=states, limit=limit)


async def _submit(selection: Selection, webhook: str | None, *, follow: bool) -> Batch:
    async with open_context() as context:
        submission = Submission(tenant=context.settings.tenant, selection=selection, webhook_url=webhook)
        batch = await _batches(context).submit(submission)
        await _warn_without_worker(context)
        return await _follow(context, batch) if follow else batch


async def _warn_without_worker(context: Context) -> None:
    if not any(each["state"] == "alive" for each in await Fleet(context.database).workers()):
        say("no extraction worker is alive; `lorry up` runs one, and so does `lorry extractions work`")


async def _follow_one(batch_id: str) -> Batch:
    async with open_context() as context:
        return await _follow(context, await _batches(context).get(batch_id, tenant=context.settings.tenant))


async def _follow(context: Context, batch: Batch) -> Batch:
    batches = _batches(context)
    with progress() as bars:
        bar = Bar(bars, "extracting", total=batch.progress.users or None)
        while not batch.ended:
            await asyncio.sleep(_POLL_SECONDS)
            batch = await batches.get(batch.id, tenant=batch.tenant)
            found = batch.progress
            bar(found.done + found.failed + found.skipped, found.users, extraction_words.note(batch))
        bar.finish(extraction_words.counts(batch.progress))
    return batch


async def _results(batch_id: str, *, after: int, follow: bool, output: Path | None) -> None:
    async with open_context() as context:
        vault = Vault(batch_settings(context), context.registry)
        try:
            lines = Results(context.database, vault).stream(
                batch_id,
                tenant=context.settings.tenant,
                after=after,
                follow_seconds=_POLL_SECONDS if follow else None,
            )
            with _writing(output) as file:
                async for line in lines:
                    file.write(to_line(line))
                    file.flush()
        finally:
            vault.close()


@contextmanager
def _writing(output: Path | None) -> Iterator[TextIO]:
    if output is None:
        yield out.file  # type: ignore[misc]
        return
    try:
        with output.open("w", encoding="utf-8") as file:
            yield file
    except OSError as exc:
        raise FileUnreadable(f"{output} cannot be written: {exc.strerror}", field=str(output)) from exc


async def _steer(batch_id: str, verb: str) -> Batch:
    async with open_context() as context:
        batches = _batches(context)
        steer = {"get": batches.get, "pause": batches.pause, "resume": batches.resume, "cancel": batches.cancel}[verb]
        return await steer(batch_id, tenant=context.settings.tenant)


def _batches(context: Context) -> Batches:
    return Batches(context.database, batch_settings(context))
