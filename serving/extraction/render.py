"""A profile for a person to read, and as files.

A directory holds ``profile.json``, ``USER_PROFILE.md``, ``facts.jsonl`` and ``patterns.jsonl``, all of one
extraction: it appears whole or not at all.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import BaseModel

from serving.errors import ProfileExists
from serving.extraction.profile import Profile, Quote, Statement, TopicSection

PROFILE_FILE = "profile.json"
MARKDOWN_FILE = "USER_PROFILE.md"
FACTS_FILE = "facts.jsonl"
PATTERNS_FILE = "patterns.jsonl"
FILES = frozenset({PROFILE_FILE, MARKDOWN_FILE, FACTS_FILE, PATTERNS_FILE})


def render_markdown(profile: Profile) -> str:
    """Return Markdown in which every statement stands above the words that back it."""
    return "\n".join(_markdown_lines(profile)) + "\n"


def write_profile(profile: Profile, directory: Path) -> Path:
    """Write the four files into `directory`, replacing an older profile there; return `directory`.

    The files are written beside it and appear by rename. A process killed between the two renames leaves the
    older profile under a hidden name next to it, and nothing in its place.

    Raises:
        ProfileExists: when `directory` is a file, or holds anything but a profile.
    """
    _refuse_foreign(directory)
    directory.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        _write_files(profile, staging / "new")
        _swap(staging / "new", directory, old=staging / "old")
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return directory


def _swap(new: Path, directory: Path, *, old: Path) -> None:
    """Put `new` in the place of `directory`; when that fails, `directory` is what it was."""
    if not directory.is_dir():
        os.rename(new, directory)
        return
    os.rename(directory, old)
    try:
        os.rename(new, directory)
    except OSError:
        os.rename(old, directory)
        raise


def fact_lines(profile: Profile) -> Iterator[str]:
    """Yield one JSON object a statement, with its topic and the adapter version that made it."""
    for section in profile.topics:
        for statement in section.statements:
            origin = {"topic": section.topic, "adapter_version": profile.adapter.version}
            yield json.dumps({**origin, **statement.model_dump(mode="json")}, ensure_ascii=False)


def _write_files(profile: Profile, directory: Path) -> None:
    directory.mkdir()
    (directory / PROFILE_FILE).write_bytes(profile.to_bytes())
    (directory / MARKDOWN_FILE).write_text(render_markdown(profile), encoding="utf-8")
    (directory / FACTS_FILE).write_text(_lines(fact_lines(profile)), encoding="utf-8")
    (directory / PATTERNS_FILE).write_text(_lines(_json_lines(profile.patterns)), encoding="utf-8")


def _json_lines(models: Iterable[BaseModel]) -> Iterator[str]:
    return (json.dumps(model.model_dump(mode="json"), ensure_ascii=False) for model in models)


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _refuse_foreign(directory: Path) -> None:
    if directory.is_dir():
        foreign = sorted({path.name for path in directory.iterdir()} - FILES)
        if foreign:
            raise ProfileExists(f"{directory} holds {foreign[0]}, which is no part of a profile", field=foreign[0])
    elif directory.exists():
        raise ProfileExists(f"{directory} is a file", field=str(directory))


def _markdown_lines(profile: Profile) -> Iterator[str]:
    adapter, asked = profile.adapter, profile.asked
    yield f"# Profile of {_plain(profile.user)}"
    yield ""
    yield f"Made {profile.generated_at:%Y-%m-%d %H:%M} UTC by adapter version {adapter.version} ({adapter.version_id}),"
    yield f"bank {profile.bank.name} {profile.bank.version}, {asked.samples} answers to {asked.questions} questions."
    yield "Each statement stands above the person's own words that back it. In brackets: how many answers said so,"
    yield "of all those to questions on the topics where it came up."
    yield f"{asked.unsupported_claims} further claims of the adapter had no such words and were left out."
    for section in profile.topics:
        yield from _section_lines(section)
    if profile.patterns:
        yield from ("", "## How they write", "", *(f"- {pattern.text}" for pattern in profile.patterns))


def _section_lines(section: TopicSection) -> Iterator[str]:
    yield from ("", f"## {section.title}", "")
    if section.not_stated:
        yield "Not stated."
    for statement in section.statements:
        yield from _statement_lines(statement)


def _statement_lines(statement: Statement) -> Iterator[str]:
    agreement = statement.agreement
    yield f"- **{_plain(statement.text)}** (said in {agreement.k} of {agreement.n} answers)"
    yield from (f"  > {_quote(quote)}" for quote in statement.support)
    yield from (f"  > *but:* {_quote(quote)}" for quote in statement.contradictions)


def _quote(quote: Quote) -> str:
    when = f"{quote.time:%Y-%m-%d}, " if quote.time else ""
    return f"“{_plain(quote.quote)}” ({when}transcript {quote.transcript_id[:8]}, turn {quote.turn})"


def _plain(text: str) -> str:
    """Put text on one line, with what Markdown or HTML would act upon escaped: a quote must not format or link."""
    line = " ".join(text.split())
    for mark in "\\`*_[]<>#|":
        line = line.replace(mark, f"\\{mark}")
    return line
