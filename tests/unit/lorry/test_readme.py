"""What the README and the pages tell people to type is what the commands take."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from lorry.cli import app

ROOT = Path(__file__).resolve().parents[3]
PAGES = (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))
LINES = sorted(
    {
        re.sub(r"^([A-Z_]+=\S+ )+", "", re.split(r"  #| > ", line)[0].strip())
        for page in PAGES
        for block in re.findall(r"```(?:sh|console)?\n(.*?)```", page.read_text(), re.DOTALL)
        for line in block.splitlines()
        if re.match(r"\s*([A-Z_]+=\S+ )*lorry ", line)
    }
)


def parse(line: str) -> None:
    """Parse a line as the command would, and run nothing."""
    command: Any = typer.main.get_command(app)
    _, *arguments = shlex.split(line)
    while arguments and (known := getattr(command, "commands", {}).get(arguments[0])) is not None:
        command = known
        arguments = arguments[1:]
    command.make_context(line, arguments)


@pytest.mark.parametrize("line", LINES)
def test_every_line_can_be_typed(line: str) -> None:
    parse(line)


def test_a_line_without_what_its_command_requires_is_found() -> None:
    assert len(LINES) > 60
    with pytest.raises(typer.BadParameter):
        parse("lorry adapters erase ada --whole-user")
