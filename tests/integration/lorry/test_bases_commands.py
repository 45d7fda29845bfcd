"""`lorry bases list|show|add` against a registry."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from lorry.commands import bases
from registry.client import RegistryClient
from tests.support.registry_server import TOKEN, registry_settings, registry_url

__all__ = ["registry_settings", "registry_url"]
Command = Callable[..., Awaitable[Result]]
CONFIG = {
    "model_type": "llama", "num_hidden_layers": 2, "hidden_size": 8, "intermediate_size": 8,
    "num_attention_heads": 2, "num_key_value_heads": 2,
}  # fmt: skip


@pytest.fixture
def lorry(registry_url: str, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run `lorry bases …` on this test's registry instead of the machine's."""

    @asynccontextmanager
    async def context() -> AsyncIterator[Any]:
        async with RegistryClient(url=registry_url, token=TOKEN) as registry:
            yield SimpleNamespace(registry=registry, settings=SimpleNamespace(tenant="default"))

    monkeypatch.setattr(bases, "open_context", context)

    async def run(*arguments: str) -> Result:
        return await asyncio.to_thread(CliRunner(env={"COLUMNS": "200"}).invoke, bases.app, list(arguments))

    return run


def write_base(directory: Path, **changes: Any) -> Path:
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(CONFIG | changes))
    (directory / "model.safetensors").write_bytes(b"weights")
    (directory / "tokenizer.json").write_text("{}")
    return directory


async def test_a_base_is_added_listed_and_shown(lorry: Command, tmp_path: Path) -> None:
    folder = write_base(tmp_path / "small")
    added = await lorry("add", str(folder), "--id", "org/small", "--revision", "r1", "--json")
    assert added.exit_code == 0, added.output
    assert json.loads(added.stdout)["shape"]["num_hidden_layers"] == 2
    assert (await lorry("add", str(folder), "--id", "org/small")).exit_code == 0
    listed = json.loads((await lorry("list", "--json")).stdout)
    assert [(base["id"], base["revision"]) for base in listed] == [("org/small", "r1")]
    assert "org/small" in (await lorry("list")).stdout
    shown = (await lorry("show", "org/small")).stdout
    assert listed[0]["weights_sha256"] in shown
    assert json.loads((await lorry("show", "org/small", "--json")).stdout) == listed[0]


async def test_another_revision_of_the_same_content_is_said_to_change_nothing(lorry: Command, tmp_path: Path) -> None:
    folder = str(write_base(tmp_path / "small"))
    assert (await lorry("add", folder, "--revision", "r1")).stderr == ""
    again = await lorry("add", folder, "--revision", "r2")
    assert (again.exit_code, again.stdout) == (0, "small is registered\n")
    assert "registered before, with revision r1, and keeps that; --revision r2 changed nothing" in again.stderr
    assert (await lorry("add", folder, "--revision", "r1")).stderr == ""
    assert [base["revision"] for base in json.loads((await lorry("list", "--json")).stdout)] == ["r1"]


async def test_another_base_under_a_known_id_is_refused(lorry: Command, tmp_path: Path) -> None:
    await lorry("add", str(write_base(tmp_path / "a")), "--id", "base")
    other = await lorry("add", str(write_base(tmp_path / "b", hidden_size=16)), "--id", "base")
    assert (other.exit_code, other.stdout) == (4, "")


@pytest.mark.parametrize("name", ["a\nb", "x" * 257])
async def test_an_id_that_is_none_is_refused_in_words(lorry: Command, tmp_path: Path, name: str) -> None:
    refused = await lorry("add", str(write_base(tmp_path / "a")), "--id", name)
    assert (refused.exit_code, "1 to 256 characters" in refused.stderr) == (2, True)


async def test_what_is_no_base_is_bad_input(lorry: Command, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert (await lorry("add", str(tmp_path / "empty"))).exit_code == 2
    assert (await lorry("add", str(tmp_path / "nowhere"))).exit_code == 2
    assert (await lorry("show", "org/unknown")).exit_code == 3
