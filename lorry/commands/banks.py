"""`lorry bank`: what extraction asks the tenant's users, and the tenant's own version of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from kit.words import counted
from lorry.context import open_context
from lorry.errors import FileUnreadable
from lorry.output import EXIT_CODES, out, print_json, print_table, run, shown_time
from serving.errors import BankInvalid
from serving.extraction.bank import STANDARD_BANK, Bank, standard_bank
from serving.extraction.bank.extension import assemble
from serving.extraction.bank.repository import KeptBank
from serving.extraction.bank.shelf import BankShelf

app = typer.Typer(no_args_is_help=True, help="The question bank: show, check, set.", epilog=EXIT_CODES)
Json = Annotated[bool, typer.Option("--json", help="print JSON")]
File = Annotated[Path, typer.Argument(help="YAML: a whole bank, or `extends: lorry.standard` and what is added")]


@app.command()
def show(
    standard: Annotated[bool, typer.Option("--standard", help="the bank that Lorry ships, not the tenant's")] = False,
    source: Annotated[bool, typer.Option("--source", help="the YAML as it was written, to edit and set again")] = False,
    revisions: Annotated[bool, typer.Option("--revisions", help="every revision of the tenant's own bank")] = False,
    as_json: Json = False,
) -> None:
    """Show what the tenant's users are asked."""
    if revisions:
        _print_revisions(run(_revisions(), as_json=as_json), as_json=as_json)
        return
    bank, kept = (standard_bank(), None) if standard else run(_current(), as_json=as_json)
    if source:
        out.file.write(kept.document if kept and kept.document else STANDARD_BANK.read_text(encoding="utf-8"))
    else:
        _print_bank(bank, as_json=as_json)


@app.command()
def check(file: File, as_json: Json = False) -> None:
    """Say whether a bank can be used, and what it would ask; nothing is kept."""
    _print_bank(run(_check(file), as_json=as_json), as_json=as_json)


@app.command("set")
def set_(
    file: Annotated[Path | None, typer.Argument(help="YAML as for `check`")] = None,
    standard: Annotated[bool, typer.Option("--standard", help="go back to the bank that Lorry ships")] = False,
    by: Annotated[str | None, typer.Option(help="who; LORRY_ACTOR when omitted")] = None,
    as_json: Json = False,
) -> None:
    """Make a bank the tenant's own from the next extraction on; the older revisions are kept."""
    if (file is None) != standard:
        raise typer.BadParameter("name a FILE, or say --standard")
    bank, kept = run(_set(file, by=by), as_json=as_json)
    if as_json:
        print_json({"name": bank.name, "version": bank.version, "revision": kept.revision})
        return
    told = f"revision {kept.revision}: {bank.name} {bank.version}, {counted(len(bank.topics), 'topic')}"
    out.print(f"{told}, asked from the next extraction on", highlight=False, markup=False, soft_wrap=True)


async def _check(file: Path) -> Bank:
    return assemble(_read(file), standard=standard_bank(), name=str(file))


async def _set(file: Path | None, *, by: str | None) -> tuple[Bank, KeptBank]:
    document = None if file is None else _read(file)
    async with open_context() as context:
        shelf = BankShelf(context.database)
        kept = await shelf.put(context.settings.tenant, document, by=by or context.settings.actor)
        return await shelf.bank_of(context.settings.tenant), kept


async def _current() -> tuple[Bank, KeptBank | None]:
    async with open_context() as context:
        shelf = BankShelf(context.database)
        return await shelf.bank_of(context.settings.tenant), await shelf.kept(context.settings.tenant)


async def _revisions() -> list[dict[str, Any]]:
    async with open_context() as context:
        found = await BankShelf(context.database).revisions(context.settings.tenant)
    return [{**_described(kept), "made_by": kept.made_by, "made_at": kept.made_at} for kept in found]


def _described(kept: KeptBank) -> dict[str, Any]:
    if kept.document is None:
        return {"revision": kept.revision, "name": standard_bank().name, "version": "back to the standard"}
    try:
        bank = assemble(kept.document, standard=standard_bank())
    except BankInvalid as exc:
        return {"revision": kept.revision, "name": "", "version": f"cannot be used any more: {exc.message}"}
    return {"revision": kept.revision, "name": bank.name, "version": bank.version}


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as exc:
        raise FileUnreadable(f"{file} cannot be read: {exc.strerror}", field=str(file)) from exc
    except UnicodeDecodeError as exc:
        raise FileUnreadable(f"{file} is not UTF-8 text", field=str(file)) from exc


def _print_bank(bank: Bank, *, as_json: bool) -> None:
    if as_json:
        print_json(bank.model_dump(mode="json"))
        return
    rows = [
        [topic.topic, question.id, "\n".join(question.paraphrases)]
        for topic in bank.topics
        for question in topic.questions
    ]
    print_table(f"{bank.name} {bank.version}", ["topic", "question", "wordings"], rows)


def _print_revisions(found: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    rows = [
        [str(each["revision"]), each["name"], each["version"], each["made_by"], shown_time(each["made_at"])]
        for each in found
    ]
    columns = ["revision", "name", "version", "by", "at"]
    print_table("Revisions of the tenant's bank", columns, rows, numeric=frozenset({"revision"}))
