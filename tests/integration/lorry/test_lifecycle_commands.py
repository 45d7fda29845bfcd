"""`lorry adapters promote … erase` and `lorry registry …`, as processes, against a real registry."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from kit.database import Database
from kit.settings import DatabaseSettings
from kit.storage import ObjectStorage
from registry.client import RegistryClient
from registry.manifest import Owner
from registry.repository import subject_of
from tests.support.command import Lorry
from tests.support.nursery import Nursery
from tests.support.registry_server import client, registry_settings, registry_url
from tests.support.steering import aliases, make_live, publish, publish_many, states

__all__ = ["client", "registry_settings", "registry_url"]


@pytest.fixture
def lorry(nursery: Nursery, registry_url: str, database_settings: DatabaseSettings, tmp_path: Path) -> Lorry:
    return Lorry(
        nursery, registry_url=registry_url, database_url=database_settings.database_url, home=tmp_path / "home"
    )


async def test_a_version_is_promoted_rolled_back_and_its_history_shown(
    lorry: Lorry, client: RegistryClient, database: Database, tmp_path: Path
) -> None:
    a, b = await publish_many(client, tmp_path, 2)
    code, _, complained = await lorry("adapters", "promote", "ann")  # there is no candidate
    assert (code, "ann has no alias candidate; say which version, as" in complained) == (3, True)
    assert "adapters promote ann@1" in complained.replace("\n", " ")
    code, _, complained = await lorry("adapters", "show", "ann")  # nor anything live
    assert (code, "adapters promote ann@1" in complained.replace("\n", " ")) == (3, True)
    code, told, _ = await lorry("adapters", "promote", "ann@1", "--why", "first")
    assert (code, told) == (0, "live names version 1 (is new)\n")
    await lorry("adapters", "promote", "ann@2", "--to", "candidate")
    moved = await lorry.json("adapters", "promote", "users/ann/profile", "--why", "better")
    numbers = {"version": 2, "before_version": 1}
    assert moved == {"alias": "live", "version_id": b, "before_version_id": a, **numbers}
    assert (await lorry("adapters", "rollback", "ann", "--why", "worse"))[1] == "live names version 1 (was 2)\n"
    assert await aliases(database) == {"live": a, "candidate": b}
    code, told, complained = await lorry("adapters", "rollback", "ann", "--json")
    assert (code, told, json.loads(complained)["error"]) == (4, "", "nothing-to-roll-back-to")
    code, table, _ = await lorry("adapters", "history", "ann")
    assert code == 0
    for cell in ("rollback", "promote", "better", "worse", "lorry", a, b):
        assert cell in table
    shown = await lorry.json("adapters", "history", "ann", "--alias", "live")
    assert [(move["action"], move["version"]) for move in shown["moves"]] == [
        ("rollback", 1),
        ("promote", 2),
        ("move", 1),
    ]
    assert (await lorry("adapters", "promote", "ann@7"))[0] == 3
    assert (await lorry("adapters", "promote", "a/b/c"))[0] == 2
    for name in ("a b", "x/y", "2", "9"):
        code, _, complained = await lorry("adapters", "promote", "ann@1", "--to", name)
        assert (code, complained.startswith("error: ")) == (2, True), name


async def test_a_gate_is_set_refuses_and_is_opened_by_a_report(
    lorry: Lorry, client: RegistryClient, tmp_path: Path
) -> None:
    await publish(client, tmp_path)
    shown = await lorry.json(
        *("registry", "policy", "set", "keep_versions=5", "max_rank=8", 'gate.pushed.metrics={"gain":{"at_least":0.5}}')
    )
    assert (shown["keep_versions"], shown["max_rank"]) == (5, 8)
    code, table, _ = await lorry("registry", "policy", "show")
    assert code == 0
    assert "gate.pushed.metrics" in table
    code, _, complained = await lorry("adapters", "promote", "ann@1", "--json")
    assert (code, json.loads(complained)["reasons"]) == (4, ["there is no evaluation report"])
    report = tmp_path / "report.json"
    report.write_text('{"gain": 0.6}')
    assert (await lorry("adapters", "attach", "ann@1", str(report)))[0] == 0
    assert (await lorry("adapters", "promote", "ann@1"))[0] == 0
    report.write_text("[1]")
    for path in (report, tmp_path / "nothing.json"):
        assert (await lorry("adapters", "attach", "ann@1", str(path)))[0] == 2


@pytest.mark.parametrize("rule", ["keep_versions", "keep_versions=0", "moons=1", "gate.moons=1", "max_rank=eight"])
async def test_a_rule_that_is_none_is_refused_by_name(lorry: Lorry, rule: str) -> None:
    code, _, complained = await lorry("registry", "policy", "set", rule, "--json")
    assert (code, json.loads(complained)["field"]) == (2, rule.partition("=")[0])


async def test_suspending_retiring_and_resuming_name_a_version_an_adapter_or_a_user(
    lorry: Lorry, client: RegistryClient, database: Database, tmp_path: Path
) -> None:
    a, b = await publish_many(client, tmp_path, 2)
    await make_live(client, a)
    assert (await lorry("adapters", "suspend", "ann@live"))[0] == 2  # without a reason
    assert (await lorry("adapters", "suspend", "ann@live", "--why", "odd"))[1] == "version 1 is suspended\n"
    assert (await states(database))[a] == "suspended"
    assert (await lorry("adapters", "resume", a, "--why", "fine"))[1] == "version 1 is ready\n"
    assert (await lorry("adapters", "suspend", "ann", "--why", "odd"))[1] == "users/ann/profile is suspended\n"
    shown = await lorry.json("adapters", "suspend", "ann", "--whole-user", "--why", "leak")
    assert (shown["what"], shown["adapter"], shown["why"]) == ("users/ann", None, "leak")
    assert [(each["user"], each["adapter"]) for each in await lorry.json("adapters", "suspended")] == [
        ("ann", None),
        ("ann", "profile"),
    ]
    code, table, _ = await lorry("adapters", "suspended")
    assert (code, len(re.findall(r"│ \d{4}-\d\d-\d\d \d\d:\d\d +│", table))) == (0, 2)
    assert (await lorry("adapters", "resume", "ann", "--why", "fine"))[0] == 0
    assert (await lorry("adapters", "resume", "ann", "--whole-user", "--why", "fine"))[0] == 0
    assert await lorry.json("adapters", "suspended") == []
    assert (await lorry("adapters", "retire", "ann@1", "--why", "old"))[0] == 4  # live names it
    assert (await lorry("adapters", "retire", "ann@2", "--why", "old"))[1] == "version 2 is retired\n"
    assert (await states(database))[b] == "retired"
    trail = await lorry.json("adapters", "audit", "ann@2")
    assert trail["entries"][0]["actor"] == "lorry"
    assert (await lorry("adapters", "audit", "ann"))[0] == 0
    assert (await lorry.json("registry", "audit", "--limit", "1"))["entries"] == trail["entries"][:1]


async def test_erasing_asks_first_and_names_what_goes(
    lorry: Lorry, client: RegistryClient, database: Database, storage: ObjectStorage, tmp_path: Path
) -> None:
    a, b = await publish_many(client, tmp_path, 2)
    code, _, complained = await lorry("adapters", "erase", "ann@1", "--why", "asked for")
    assert (code, "--yes" in complained) == (2, True)
    assert (await lorry("adapters", "erase", "ann", "--yes", "--why", "asked for"))[0] == 2  # which version?
    assert set((await states(database)).values()) == {"ready"}
    tombstone = await lorry.json("adapters", "erase", "ann@1", "--yes", "--why", "asked for")
    assert (tombstone["version_id"], tombstone["removed_at"]) == (a, None)  # its upload URL lives on
    code, told, _ = await lorry("adapters", "erase", "ann", "--whole-user", "--yes", "--why", "asked for")
    assert (code, told) == (0, "erased 1 version (1 already); their data key is destroyed\n")
    assert await states(database) == {a: "erased", b: "erased"}
    code, table, _ = await lorry("adapters", "versions", "ann")
    assert (code, len(re.findall(r"│ +— │ .*│ erased \d{4}-\d\d-\d\d \d\d:\d\d +│", table))) == (0, 2)
    assert await storage.list("") == []


async def test_the_audit_trail_says_whom_also_after_an_erasure_and_never_by_name(
    lorry: Lorry, client: RegistryClient, tmp_path: Path
) -> None:
    for user in ("ann", "bob"):
        await publish(client, tmp_path, owner=Owner(tenant="default", user=user))
        await lorry("adapters", "suspend", user, "--why", "odd")
        await lorry("adapters", "resume", user, "--whole-user", "--why", "fine")
        await lorry("adapters", "suspend", user, "--whole-user", "--why", "odd")
        await lorry("adapters", "resume", user, "--whole-user", "--why", "fine")
    await lorry("adapters", "erase", "ann", "--whole-user", "--yes", "--why", "asked for")
    entries = (await lorry.json("registry", "audit", "--user", "ann"))["entries"]
    of_owner = [entry for entry in entries if entry["subject"] is not None]
    assert [entry["action"] for entry in of_owner] == [
        "erase-owner", "data-key-destroyed", "resume-owner", "suspend-owner", "suspend-adapter",
    ]  # fmt: skip
    assert {entry["subject"] for entry in of_owner} == {subject_of(Owner(tenant="default", user="ann"))}
    assert [entry["after"] for entry in entries if entry not in of_owner] == ["erased", "ready", "uploaded", None]
    assert "ann" not in json.dumps(entries)
    code, table, _ = await lorry("registry", "audit", "--limit", "2")
    assert (code, table.count(entries[0]["subject"])) == (0, 2)
    assert (await lorry("registry", "audit", "--user", "a b"))[0] == 2


async def test_upkeep_shows_what_it_finds_and_says_by_its_exit_code_whether_anything_is_left(
    lorry: Lorry, client: RegistryClient, database: Database, storage: ObjectStorage, tmp_path: Path
) -> None:
    a, _ = await publish_many(client, tmp_path, 2)
    assert (await lorry("registry", "reconcile", "--dry-run"))[:2] == (0, "nothing to do\n")
    for key in [found.key for found in await storage.list("tenants/") if a in found.key]:
        await storage.delete(key)
    code, table, _ = await lorry("registry", "reconcile", "--dry-run")
    assert (code, "dry run" in table, a in table) == (4, True, True)
    code, told, complained = await lorry("registry", "reconcile", "--json")
    (finding,) = json.loads(told)["findings"]
    assert (code, finding["action"], finding["done"]) == (0, "suspend", True)
    assert "rows without objects: 2 looked at" in complained
    assert (await lorry("registry", "reconcile"))[0] == 4  # suspended still, for want of its object
    await lorry("registry", "policy", "set", "keep_versions=1", "remove_after_seconds=0")
    assert (await lorry.json("registry", "retain", "--dry-run"))["findings"] == []
