"""A profile as files.

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
from serving.extraction.profile.profile import Profile
from serving.extraction.render.markdown import render_markdown

PROFILE_FILE = "profile.json"
MARKDOWN_FILE = "USER_PROFILE.md"
FACTS_FILE = "facts.jsonl"
PATTERNS_FILE = "patterns.jsonl"
FILES = frozenset({PROFILE_FILE, MARKDOWN_FILE, FACTS_FILE, PATTERNS_FILE})


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
    for section, statement in profile.statements():
        origin = {"kind": "fact", "topic": section.topic, "adapter_version": profile.adapter.version}
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
