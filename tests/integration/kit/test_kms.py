"""Master keys in KMS, against a local server that speaks its protocol."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer
from pydantic import SecretStr

from kit.database import Database
from kit.errors import MasterKeyMissing, MasterKeyUnavailable, SealBroken
from kit.master_keys import KeyFile, open_master_keys
from kit.settings import MasterKeySettings
from registry.manifest import Owner
from registry.sealing.data_keys import DataKeys
from registry.sealing.rotation import rewrap_data_keys

CONTEXT = {"data_key": "k1"}
ALIAS = "alias/lorry"


@pytest.fixture(scope="module")
def kms_url() -> Iterator[str]:
    """A KMS with two keys, the first of which is called `alias/lorry`."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def keys_of_kms(kms_url: str) -> list[str]:
    """ARNs of two keys; the alias names the first."""
    client = boto3.client(
        "kms", endpoint_url=kms_url, region_name="us-east-1", aws_access_key_id="k", aws_secret_access_key="s"
    )
    made = [client.create_key()["KeyMetadata"]["Arn"] for _ in range(2)]
    if any(alias["AliasName"] == ALIAS for alias in client.list_aliases()["Aliases"]):
        client.update_alias(AliasName=ALIAS, TargetKeyId=made[0])
    else:
        client.create_alias(AliasName=ALIAS, TargetKeyId=made[0])
    return made


def kms_settings(url: str, key_id: str = ALIAS, *, file: Path | None = None) -> MasterKeySettings:
    return MasterKeySettings(
        master_key_file=file,
        kms_key_id=key_id,
        kms_endpoint_url=url,
        kms_access_key_id="k",
        kms_secret_access_key=SecretStr("s"),
        kms_timeout_seconds=1.0,
    )


async def test_kms_unwraps_what_it_wrapped_and_names_the_key_behind_the_alias(
    kms_url: str, keys_of_kms: list[str]
) -> None:
    keys = open_master_keys(kms_settings(kms_url))
    master_key_id, wrapped = await keys.wrap(b"d" * 32, CONTEXT)
    assert master_key_id == f"kms:{keys_of_kms[0]}" == await keys.primary_id()
    assert b"d" * 32 not in wrapped
    assert await open_master_keys(kms_settings(kms_url)).unwrap(master_key_id, wrapped, CONTEXT) == b"d" * 32


async def test_a_wrapped_key_does_not_open_elsewhere_or_changed(kms_url: str, keys_of_kms: list[str]) -> None:
    keys = open_master_keys(kms_settings(kms_url))
    master_key_id, wrapped = await keys.wrap(b"d" * 32, CONTEXT)
    with pytest.raises(SealBroken):
        await keys.unwrap(master_key_id, wrapped, {"data_key": "k2"})
    with pytest.raises(SealBroken):
        await keys.unwrap(master_key_id, wrapped[:-1] + bytes([wrapped[-1] ^ 1]), CONTEXT)


async def test_a_key_that_kms_does_not_have_is_missing(kms_url: str, keys_of_kms: list[str]) -> None:
    with pytest.raises(MasterKeyMissing, match="NotFoundException"):
        await open_master_keys(kms_settings(kms_url, "alias/no-such-key")).wrap(b"d" * 32, CONTEXT)
    with pytest.raises(MasterKeyMissing, match="LORRY_MASTER_KEY_FILE"):
        await open_master_keys(kms_settings(kms_url)).unwrap("file:abc", b"w", CONTEXT)


async def test_a_kms_that_does_not_answer_is_unavailable_and_blocks_nobody() -> None:
    """A server that accepts and says nothing."""

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    silent = kms_settings(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    keys = open_master_keys(silent.model_copy(update={"kms_timeout_seconds": 0.2}))
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0)
            ticks += 1

    ticking = asyncio.create_task(tick())
    with pytest.raises(MasterKeyUnavailable, match="KMS did not answer"):
        await keys.wrap(b"d" * 32, CONTEXT)
    ticking.cancel()
    server.close()
    assert ticks > 20
    with pytest.raises(MasterKeyUnavailable):
        await open_master_keys(kms_settings("http://127.0.0.1:9")).primary_id()


async def test_data_keys_move_from_the_file_to_kms_and_to_another_key_of_it(
    database: Database, kms_url: str, keys_of_kms: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "keys.json"
    owners = [Owner(tenant="default", user=f"u{number}") for number in range(12)]
    in_file = DataKeys(database, KeyFile.create(path))
    keys = [await in_file.ensure(owner) for owner in owners]
    both = kms_settings(kms_url, file=path)
    running = DataKeys(database, open_master_keys(both))
    assert [await running.open(key.id) for key in keys] == [key.secret for key in keys]

    first = await rewrap_data_keys(database, open_master_keys(both), actor="tester")
    assert (first.master_key_id, first.rewrapped) == (f"kms:{keys_of_kms[0]}", 12)
    kms_alone = DataKeys(database, open_master_keys(kms_settings(kms_url)))
    assert [await kms_alone.open(key.id) for key in keys] == [key.secret for key in keys]

    other = open_master_keys(kms_settings(kms_url, keys_of_kms[1]))
    second = await rewrap_data_keys(database, other, actor="tester")
    assert (second.master_key_id, second.rewrapped) == (f"kms:{keys_of_kms[1]}", 12)
    fresh = DataKeys(database, other)
    assert [await fresh.open(key.id) for key in keys] == [key.secret for key in keys]


async def test_kms_is_asked_once_a_minute_for_a_key_that_is_used_all_the_time(
    database: Database, kms_url: str, keys_of_kms: list[str]
) -> None:
    calls = 0
    keys = open_master_keys(kms_settings(kms_url))
    client = keys._kms._client  # type: ignore[attr-defined]

    def count(**_: object) -> None:
        nonlocal calls
        calls += 1

    client.meta.events.register("before-call.kms.Decrypt", count)
    maker, another_process = DataKeys(database, keys), DataKeys(database, keys)
    key = await maker.ensure(Owner(tenant="default", user="ann"))
    for _ in range(20):
        await maker.open(key.id)
    assert calls == 0, "who has just made a key knows it"
    for _ in range(20):
        await another_process.open(key.id)
    assert calls == 1
