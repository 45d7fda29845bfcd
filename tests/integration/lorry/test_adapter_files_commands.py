"""`lorry adapters push|pull|verify` against a registry: files in and out, exit codes, JSON."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import Result
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from typer.testing import CliRunner

from kit.storage import ObjectStorage
from lorry.commands import adapter_files, adapters
from registry.client import RegistryClient
from registry.manifest import CONFIG_FILE, WEIGHTS_FILE, BaseIdentity
from registry.settings import RegistrySettings
from tests.support import registry_server
from tests.support.adapters import BASE, BASE_CONFIG, poisoned, write_adapter
from tests.support.registry_server import TOKEN, registry_url

__all__ = ["registry_url"]
Command = Callable[..., Awaitable[Result]]
unsigned_settings = registry_server.registry_settings


@pytest.fixture
def public_key(tmp_path: Path) -> Path:
    """The public half of the key that this test's registry signs with."""
    key, pem = ec.generate_private_key(ec.SECP256R1()), serialization.Encoding.PEM
    pkcs8 = serialization.PrivateFormat.PKCS8
    (tmp_path / "private.pem").write_bytes(key.private_bytes(pem, pkcs8, serialization.NoEncryption()))
    path = tmp_path / "public.pem"
    path.write_bytes(key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    return path


@pytest.fixture
def registry_settings(unsigned_settings: RegistrySettings, public_key: Path) -> RegistrySettings:
    return unsigned_settings.model_copy(update={"signing_private_key_file": public_key.with_name("private.pem")})


@pytest.fixture
async def lorry(registry_url: str, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run `lorry adapters …` on this test's registry instead of the machine's."""

    @asynccontextmanager
    async def context() -> AsyncIterator[Any]:
        async with RegistryClient(url=registry_url, token=TOKEN) as registry:
            settings = SimpleNamespace(tenant="default", signing_public_key_file=None)
            yield SimpleNamespace(registry=registry, settings=settings)

    async with RegistryClient(url=registry_url, token=TOKEN) as registry:
        await registry.register_base(BASE, config=BASE_CONFIG)
    monkeypatch.setattr(adapter_files, "open_context", context)

    async def run(*arguments: str) -> Result:
        runner = CliRunner(env={"COLUMNS": "200"})
        return await asyncio.to_thread(runner.invoke, adapters.app, list(arguments))

    return run


async def test_what_is_pushed_can_be_pulled_with_its_signature(lorry: Command, tmp_path: Path) -> None:
    directory = write_adapter(tmp_path / "a")
    pushed = await lorry("push", str(directory), "--user", "ann", "--base", BASE.id, "--live", "--json")
    assert pushed.exit_code == 0, pushed.output
    manifest = json.loads(pushed.stdout)
    signature = tmp_path / "model.sig"
    pulled = await lorry("pull", "ann", str(tmp_path / "b"), "--signature", str(signature), "--json")
    assert pulled.exit_code == 0, pulled.output
    assert json.loads(pulled.stdout) == manifest
    assert (tmp_path / "b" / WEIGHTS_FILE).read_bytes() == (directory / WEIGHTS_FILE).read_bytes()
    bundle = json.loads(signature.read_text())
    signed = base64.b64decode(bundle["dsseEnvelope"]["payload"]).decode()
    assert manifest["version_id"] in signed


async def test_an_adapter_is_pushed_for_a_whole_tenant(lorry: Command, tmp_path: Path) -> None:
    directory = write_adapter(tmp_path / "a")
    pushed = await lorry("push", str(directory), "--shared", "--adapter", "house", "--base", BASE.id)
    assert "published shared/house version 1" in pushed.stdout, pushed.output
    assert (await lorry("pull", "shared/house@1", str(tmp_path / "b"))).exit_code == 0


async def test_a_push_says_what_to_type_next_until_the_version_is_live(lorry: Command, tmp_path: Path) -> None:
    directory = str(write_adapter(tmp_path / "a"))
    for _ in range(2):  # also of what is there already
        pushed = await lorry("push", directory, "--user", "ann", "--base", BASE.id)
        assert "adapters promote ann@1" in pushed.stderr, pushed.output
    made_live = await lorry("push", directory, "--user", "ann", "--base", BASE.id, "--live")
    assert made_live.exit_code == 0
    again = await lorry("push", directory, "--user", "ann", "--base", BASE.id)
    assert "promote" not in made_live.stderr + again.stderr
    shared = await lorry("push", directory, "--shared", "--adapter", "house", "--base", BASE.id)
    assert "adapters promote shared/house@1" in shared.stderr


async def test_what_peft_saves_beside_an_adapter_is_left_out_and_said_so(lorry: Command, tmp_path: Path) -> None:
    directory = write_adapter(tmp_path / "a")
    (directory / "README.md").write_text("library_name: peft")
    pushed = await lorry("push", str(directory), "--user", "ann", "--base", BASE.id, "--live")
    assert (pushed.exit_code, "README.md is left out" in pushed.stderr) == (0, True), pushed.output
    assert (await lorry("pull", "ann", str(tmp_path / "b"))).exit_code == 0
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == [CONFIG_FILE, WEIGHTS_FILE]


async def test_an_adapter_of_another_base_is_bad_input_and_says_how_to_name_its_own(
    lorry: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "base"
    home.mkdir()
    (home / "config.json").write_bytes(BASE_CONFIG)
    directory = write_adapter(tmp_path / "a", layers=3)

    async def this_homes(context: Any, base_id: str | None) -> tuple[BaseIdentity, Path | None]:
        return BASE, home

    monkeypatch.setattr(adapter_files, "_base", this_homes)
    refused = await lorry("push", str(directory), "--user", "ann", "--json")
    problem = json.loads(refused.stderr)
    assert (refused.exit_code, problem["error"]) == (2, "adapter-invalid")
    assert f"does not fit {BASE.id}, this home's base model" in problem["detail"]
    assert "--base ID" in problem["detail"]


@pytest.mark.parametrize(
    ("named", "code"),
    [
        (f"Somebody/{BASE.id.rpartition('/')[2].upper()}", 0),
        (f"C:\\models\\{BASE.id.rpartition('/')[2]}", 0),
        (None, 0),
        ("somebody/its-sibling", 2),
        ("/data/checkpoint-100\x1b[2J", 2),
    ],
)
async def test_a_name_of_another_base_is_refused_unless_one_is_said(
    named: str | None, code: int, lorry: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sibling of the base has the same shapes: nothing but the name tells them apart."""
    home = tmp_path / "base"
    home.mkdir()
    (home / "config.json").write_bytes(BASE_CONFIG)
    directory = write_adapter(tmp_path / "a", base_model_name_or_path=named)
    real = adapter_files._base

    async def this_homes(context: Any, base_id: str | None) -> tuple[BaseIdentity, Path | None]:
        return (BASE, home) if base_id is None else await real(context, base_id)

    monkeypatch.setattr(adapter_files, "_base", this_homes)
    pushed = await lorry("push", str(directory), "--user", "ann", "--json")
    assert pushed.exit_code == code, pushed.output
    if code:
        problem = json.loads(pushed.stderr)
        assert (problem["error"], problem["field"]) == ("adapter-invalid", "base_model_name_or_path")
        assert f"--base {BASE.id}" in problem["detail"]
        assert "\x1b" not in problem["detail"]
        assert (await lorry("push", str(directory), "--user", "ann", "--base", BASE.id)).exit_code == 0


@pytest.mark.parametrize("whose", [[], ["--user", "ann", "--shared"]])
async def test_an_owner_is_said_once(lorry: Command, tmp_path: Path, whose: list[str]) -> None:
    found = await lorry("push", str(write_adapter(tmp_path / "a")), "--base", BASE.id, *whose)
    assert found.exit_code == 2
    assert "--shared" in found.stderr


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        (["--user", "a/b c"], "user_id 'a/b c' must be"),
        (["--user", "ann", "--adapter", "a b"], "adapter 'a b' must be"),
    ],
)
async def test_a_name_that_is_none_is_refused_in_one_line(
    lorry: Command, tmp_path: Path, bad: list[str], named: str
) -> None:
    found = await lorry("push", str(write_adapter(tmp_path / "a")), "--base", BASE.id, *bad)
    assert found.exit_code == 2
    assert found.stderr.startswith(f"error: {named}")
    assert found.stderr.count("\n") == 1


async def test_a_poisonous_adapter_is_named_and_not_sent(
    lorry: Command, storage: ObjectStorage, tmp_path: Path
) -> None:
    directory = write_adapter(tmp_path / "a")
    (directory / WEIGHTS_FILE).write_bytes(poisoned(float("nan")))
    found = await lorry("push", str(directory), "--user", "ann", "--base", BASE.id, "--json")
    assert found.exit_code == 2
    problem = json.loads(found.stderr)
    assert (problem["error"], problem["findings"][0]["code"]) == ("adapter-invalid", "value")
    assert await storage.list("") == []


async def test_a_base_that_nobody_registered_is_not_found(lorry: Command, tmp_path: Path) -> None:
    found = await lorry("push", str(write_adapter(tmp_path / "a")), "--user", "ann", "--base", "stranger")
    assert found.exit_code == 3


async def test_verify_reads_the_store_and_says_what_it_found(
    lorry: Command, storage: ObjectStorage, public_key: Path, tmp_path: Path
) -> None:
    await lorry("push", str(write_adapter(tmp_path / "a")), "--user", "ann", "--base", BASE.id, "--live")
    sound = await lorry("verify", "ann", "--public-key", str(public_key), "--json")
    assert sound.exit_code == 0, sound.output
    found = json.loads(sound.stdout)
    assert (found["sound"], found["seal_and_files"], found["signature"]) == (True, "whole", "valid")
    assert "not checked" in json.loads((await lorry("verify", "ann", "--json")).stdout)["signature"]

    other = tmp_path / "other.pem"
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    other.write_bytes(key.public_bytes(serialization.Encoding.PEM, form))
    wrong = await lorry("verify", "ann", "--public-key", str(other))
    assert wrong.exit_code == 1
    assert "expected key" in wrong.stdout

    (sealed,) = await storage.list("tenants/")
    data = await storage.get(sealed.key)
    await storage.put(sealed.key, data[:-1] + bytes([data[-1] ^ 1]))
    damaged = await lorry("verify", "ann", "--json")
    assert damaged.exit_code == 1
    assert json.loads(damaged.stdout)["sound"] is False
