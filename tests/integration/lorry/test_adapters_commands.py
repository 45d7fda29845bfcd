"""`lorry adapters list|show|versions|diff|lineage` against a registry: tables, JSON, exit codes, one call a page."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from click.testing import Result
from typer.testing import CliRunner

from kit.database import Database
from lorry.commands import adapters, adapters_read
from registry.client import RegistryClient
from tests.support.catalog import OTHER_BASE, add_bases, add_version, execute
from tests.support.registry_server import TOKEN, registry_settings, registry_url

__all__ = ["registry_settings", "registry_url"]
Command = Callable[..., Awaitable[Result]]


@pytest.fixture
def calls() -> list[str]:
    """The paths that a command asked the registry for."""
    return []


@pytest.fixture
async def lorry(registry_url: str, database: Database, monkeypatch: pytest.MonkeyPatch, calls: list[str]) -> Command:
    """Run `lorry adapters …` on this test's registry instead of the machine's."""
    await add_bases(database)

    class Counting(httpx.AsyncHTTPTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            calls.append(request.url.path)
            return await super().handle_async_request(request)

    @asynccontextmanager
    async def context() -> AsyncIterator[Any]:
        async with RegistryClient(url=registry_url, token=TOKEN, transport=Counting()) as registry:
            yield SimpleNamespace(registry=registry, settings=SimpleNamespace(tenant="default"))

    monkeypatch.setattr(adapters_read, "open_context", context)

    async def run(*arguments: str) -> Result:
        runner = CliRunner(env={"COLUMNS": "200"})
        return await asyncio.to_thread(runner.invoke, adapters.app, list(arguments))

    return run


async def test_a_list_is_one_call_a_page_and_json_is_whole(
    lorry: Command, database: Database, calls: list[str]
) -> None:
    for number in range(5):
        await add_version(database, user=f"user-{number}", live=True, evaluation={"held_out": {"own_loss": 2.25}})
    shown = await lorry("list", "--json")
    assert shown.exit_code == 0, shown.output
    assert [each["owner"]["user"] for each in json.loads(shown.stdout)] == [f"user-{number}" for number in range(5)]
    assert calls == ["/v1/tenants/default/adapters"]
    table = await lorry("list")
    assert table.exit_code == 0
    assert "user-3" in table.stdout
    assert "2.250" in table.stdout


async def test_a_limit_is_kept_and_says_that_there_is_more(lorry: Command, database: Database) -> None:
    for number in range(3):
        await add_version(database, user=f"user-{number}")
    some = await lorry("list", "--limit", "2", "--json")
    assert len(json.loads(some.stdout)) == 2
    assert "--all" in some.stderr
    for arguments in (["--limit", "3"], ["--all"]):
        every = await lorry("list", "--json", *arguments)
        assert len(json.loads(every.stdout)) == 3
        assert "--all" not in every.stderr


async def test_all_streams_page_after_page(
    lorry: Command, database: Database, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapters_read, "_PAGE", 2)
    for number in range(5):
        await add_version(database, user=f"user-{number}")
    every = await lorry("list", "--all", "--json")
    assert len(json.loads(every.stdout)) == 5
    assert len(calls) == 3
    assert (await lorry("list", "--all")).stdout.count("user-") == 5


async def test_filters_reach_the_registry(lorry: Command, database: Database) -> None:
    await add_version(database, user="ann", base=OTHER_BASE, live=True)
    await add_version(database, user="bob", state="retired")
    await add_version(database, user="~", adapter="style")
    await execute(database, "update adapter set created_at = now() - interval '3 days' where user_id = 'bob'")

    async def users(*arguments: str) -> list[str]:
        found = await lorry("list", "--json", *arguments)
        assert found.exit_code == 0, found.output
        return [each["owner"]["user"] for each in json.loads(found.stdout)]

    assert await users("--base", OTHER_BASE.id) == ["ann"]
    assert await users("--state", "retired") == ["bob"]
    assert await users("--alias", "live") == ["ann"]
    assert await users("--shared") == ["~"]
    assert await users("--search", "b") == ["bob"]
    assert await users("--since", "2d") == ["ann", "~"]
    assert await users("--since", "2000-01-01") == ["bob", "ann", "~"]
    assert await users("--suspended") == []
    assert await users("--user", "nobody") == []
    assert (await lorry("list", "--user", "nobody")).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["list", "--since", "lately"], 2),
        (["list", "--state", "nonsense"], 2),
        (["list", "--search", "a b"], 2),
        (["list", "--limit", "0"], 2),
        (["show", "nobody"], 3),
        (["show", "ann@9"], 3),
        (["show", "ann@nope"], 3),
        (["show", "a/b/c"], 2),
        (["versions", "nobody"], 3),
        (["diff", "ann", "1", "9"], 3),
        (["lineage"], 2),
        (["lineage", "ann", "--base", "x"], 2),
        (["lineage", "--base", "nope"], 3),
        (["lineage", "--base", "nope", "--json"], 3),
        (["diff", "ann"], 2),
        (["diff", "ann@1", "1", "1"], 2),
        (["diff", "ann@1", "bob@1"], 2),
        (["diff", "ann", "a b"], 2),
    ],
)
async def test_exit_codes_say_what_was_wrong(
    lorry: Command, database: Database, arguments: list[str], code: int
) -> None:
    await add_version(database, user="ann", live=True)
    result = await lorry(*arguments)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert result.stderr


async def test_a_refusal_in_json_names_the_error(lorry: Command) -> None:
    result = await lorry("show", "nobody", "--json")
    assert (result.exit_code, result.stdout) == (3, "")
    assert json.loads(result.stderr)["error"] == "adapter-not-found"


async def test_versions_of_every_state_are_shown(lorry: Command, database: Database) -> None:
    manifest = await add_version(database, user="ann", state="retired", transcripts=("t1", "t2"))
    await add_version(database, user="ann", number=2, live=True)
    listed = json.loads((await lorry("versions", "ann", "--json")).stdout)
    assert [(each["version"], each["state"], each["aliases"]) for each in listed] == [
        (2, "ready", ["live"]),
        (1, "retired", []),
    ]
    table = (await lorry("show", "ann@1")).stdout
    assert "retired" in table
    assert manifest.version_id in table
    assert json.loads((await lorry("show", "ann@1", "--json")).stdout)["manifest"]["version_id"] == manifest.version_id
    assert "2" in (await lorry("lineage", "ann@1")).stdout


async def test_two_versions_can_be_named_either_way(lorry: Command, database: Database) -> None:
    await add_version(database, user="ann", rank=8)
    await add_version(database, user="ann", number=2, rank=16, live=True)
    wanted = json.loads((await lorry("diff", "ann", "1", "2", "--json")).stdout)
    assert (wanted["old"]["version"], wanted["new"]["version"]) == (1, 2)
    for typed in (["ann@1", "ann@2"], ["ann@1", "2"], ["ann", "1", "ann@2"], ["ann@1"], ["ann", "1"]):
        assert json.loads((await lorry("diff", *typed, "--json")).stdout) == wanted, typed
    assert (await lorry("diff", "ann@2", "users/ann/profile@1")).exit_code == 0


async def test_a_transcript_that_nothing_was_trained_on_is_named(lorry: Command) -> None:
    found = await lorry("lineage", "--transcript", "nope")
    assert (found.exit_code, found.stderr) == (0, "no version was trained on transcript nope\n")


async def test_a_diff_shows_what_changed_and_by_how_much(lorry: Command, database: Database) -> None:
    await add_version(database, user="ann", rank=8, transcripts=("t1",), evaluation={"loss": 2.5})
    await add_version(database, user="ann", number=2, rank=16, live=True, evaluation={"loss": 2.0})
    table = (await lorry("diff", "ann", "1")).stdout
    assert "lora.rank" in table
    assert "+8" in table
    assert "-0.5" in table
    assert "t1" in table
    document = json.loads((await lorry("diff", "ann", "1", "2", "--json")).stdout)
    assert {"field": "evaluation.loss", "old": 2.5, "new": 2.0} in document["changes"]


async def test_lineage_lists_what_came_from_a_transcript(lorry: Command, database: Database) -> None:
    await add_version(database, user="ann", transcripts=("t1",))
    await add_version(database, user="bob", transcripts=("t1", "t2"))
    found = json.loads((await lorry("lineage", "--transcript", "t1", "--json")).stdout)
    assert [each["owner"]["user"] for each in found] == ["ann", "bob"]
    assert json.loads((await lorry("lineage", "--transcript", "t2", "--user", "ann", "--json")).stdout) == []
    assert "bob" in (await lorry("lineage", "--transcript", "t2")).stdout
