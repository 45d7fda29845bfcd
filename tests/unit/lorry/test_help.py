"""Every command explains itself: its help is printed whole, with what brackets it has."""

from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import click
import pytest
from typer.main import get_command
from typer.testing import CliRunner

from lorry.cli import app
from lorry.output import EXIT_CODES, EXIT_MEANINGS


def paths(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, child in getattr(command, "commands", {}).items():
        yield from paths(child, (*path, name))


@pytest.mark.parametrize("path", paths(get_command(app)), ids=" ".join)
def test_every_command_prints_its_help(path: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*path, "--help"])
    assert result.exit_code == 0, result.exception
    assert "Usage:" in result.output
    assert EXIT_CODES in " ".join(result.output.split())


def test_the_readmes_table_of_exit_codes_is_the_commands_own() -> None:
    readme = (Path(__file__).resolve().parents[3] / "README.md").read_text()
    table = readme.split("| exit code | meaning |\n|---|---|\n")[1].split("\n\n")[0]
    assert table == "\n".join(f"| {code} | {meaning} |" for code, meaning in EXIT_MEANINGS.items())


@pytest.mark.parametrize("name", ["show", "pull"])
def test_help_shows_what_a_reference_may_be(name: str) -> None:
    shown = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["adapters", name, "--help"]).output
    assert "users/USER[/ADAPTER][@ALIAS or @VERSION]" in shown


def test_the_command_tells_its_version() -> None:
    shown = CliRunner().invoke(app, ["--version"])
    assert (shown.exit_code, shown.output) == (0, f"lorry {version('lorry')}\n")
