"""Adapters opened as an engine's API server opens them, without a registry."""

from __future__ import annotations

from pathlib import Path

from registry.manifest import CONFIG_FILE, WEIGHTS_FILE
from serving.engine.opened import OpenedAdapter


def opened_files(files: dict[str, bytes]) -> OpenedAdapter:
    """Put these files into frozen memory; close it when done."""
    content = b"".join(files.values())
    opened = OpenedAdapter(len(content))
    opened.plain[:] = content
    opened.freeze(tuple((name, len(data)) for name, data in files.items()))
    return opened


def opened_directory(directory: Path) -> OpenedAdapter:
    """Put an adapter directory's files into frozen memory; close it when done."""
    return opened_files({name: (directory / name).read_bytes() for name in (CONFIG_FILE, WEIGHTS_FILE)})
