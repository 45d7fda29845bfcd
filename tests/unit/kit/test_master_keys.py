"""A key file is private, whole, and known to every process that uses it."""

from __future__ import annotations

import base64
import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from kit.errors import MasterKeyInvalid, MasterKeyMissing, SealBroken
from kit.master_keys import KeyFile, KeyRing, open_master_keys
from kit.sealing import new_key
from kit.settings import MasterKeySettings

CONTEXT = {"data_key": "k1"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "secrets" / "master-keys.json"


async def test_a_data_key_is_unwrapped_by_the_file_that_wrapped_it(path: Path) -> None:
    keys, data_key = KeyFile.create(path), new_key()
    master_key_id, wrapped = await keys.wrap(data_key, CONTEXT)
    assert master_key_id == await keys.primary_id()
    assert data_key not in wrapped
    assert await KeyFile(path).unwrap(master_key_id, wrapped, CONTEXT) == data_key


async def test_a_wrapped_key_does_not_open_elsewhere_or_changed(path: Path) -> None:
    keys = KeyFile.create(path)
    first = await keys.primary_id()
    master_key_id, wrapped = await keys.wrap(new_key(), CONTEXT)
    for context in ({"data_key": "k2"}, {}, {**CONTEXT, "more": ""}):
        with pytest.raises(SealBroken):
            await keys.unwrap(master_key_id, wrapped, context)
    for bit in range(len(wrapped) * 8):
        damaged = bytearray(wrapped)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SealBroken):
            await keys.unwrap(master_key_id, bytes(damaged), CONTEXT)
    second = keys.add_primary()
    with pytest.raises(SealBroken):
        await keys.unwrap(second, wrapped, CONTEXT)
    with pytest.raises(MasterKeyMissing, match="file:unknown"):
        await keys.unwrap("file:unknown", wrapped, CONTEXT)
    assert first == master_key_id


async def test_a_running_process_learns_of_keys_that_another_adds(path: Path) -> None:
    running = KeyFile.create(path)
    old, wrapped = await running.wrap(b"d" * 32, CONTEXT)
    new = KeyFile(path).add_primary()
    assert await running.primary_id() == new
    assert (await running.wrap(b"d" * 32, CONTEXT))[0] == new
    assert await running.unwrap(old, wrapped, CONTEXT) == b"d" * 32


async def test_a_forgotten_key_opens_nothing_any_more(path: Path) -> None:
    keys = KeyFile.create(path)
    old, wrapped = await keys.wrap(b"d" * 32, CONTEXT)
    with pytest.raises(MasterKeyInvalid, match="primary"):
        keys.forget(old)
    new = keys.add_primary()
    keys.forget(old)
    with pytest.raises(MasterKeyMissing):
        await keys.unwrap(old, wrapped, CONTEXT)
    with pytest.raises(MasterKeyMissing):
        keys.forget(old)
    assert sorted(json.loads(path.read_text())["keys"]) == [new]


def test_the_file_is_for_its_owner_alone(path: Path) -> None:
    KeyFile.create(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    KeyFile(path).add_primary()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o400)
    KeyFile(path)
    for mode in (0o640, 0o604, 0o620, 0o602, 0o660, 0o644):
        path.chmod(mode)
        with pytest.raises(MasterKeyInvalid, match="chmod 600"):
            KeyFile(path)


def test_a_mode_that_is_loosened_later_is_noticed(path: Path) -> None:
    keys = KeyFile.create(path)
    path.chmod(0o644)
    with pytest.raises(MasterKeyInvalid, match="chmod 600"):
        keys.ring()


def test_making_it_again_changes_nothing(path: Path) -> None:
    KeyFile.create(path)
    made = path.read_bytes()
    KeyFile.create(path)
    assert path.read_bytes() == made


def test_of_many_makers_at_once_one_wins_and_all_have_its_key(path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        rings = list(pool.map(lambda _: KeyFile.create(path).ring(), range(16)))
    assert len({ring.primary for ring in rings}) == 1
    assert len({ring.keys[ring.primary] for ring in rings}) == 1
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_of_many_that_add_keys_at_once_none_is_lost(path: Path) -> None:
    first = KeyFile.create(path).ring().primary
    with ThreadPoolExecutor(8) as pool:
        added = list(pool.map(lambda _: KeyFile(path).add_primary(), range(12)))
    ring = KeyFile(path).ring()
    assert set(ring.keys) == {first, *added}
    assert ring.primary in added


async def test_a_key_that_was_added_opens_and_wraps_from_the_next_rotation_on(path: Path) -> None:
    keys = KeyFile.create(path)
    first = await keys.primary_id()
    added = keys.add_next()
    assert (await keys.primary_id(), keys.holds(added), keys.add_next()) == (first, True, added)
    assert KeyFile(path).add_primary() == added
    assert KeyFile(path).ring() == KeyRing(primary=added, keys=keys.ring().keys)
    waiting = keys.add_next()
    keys.forget(first)
    assert keys.ring().next == waiting
    keys.forget(waiting)
    assert keys.ring().next is None


def test_a_link_to_a_key_file_stays_one_when_keys_change(path: Path, tmp_path: Path) -> None:
    KeyFile.create(path)
    link = tmp_path / "link.json"
    link.symlink_to(path)
    added = KeyFile(link).add_primary()
    assert link.is_symlink()
    assert KeyFile(path).ring().primary == added


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_key_file_of_another_account_is_refused(path: Path) -> None:
    KeyFile.create(path)
    os.chown(path, 4242, -1)
    with pytest.raises(MasterKeyInvalid, match="belongs to another account"):
        KeyFile(path)


KEY = base64.b64encode(b"k" * 32).decode()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "keyring"),
        ("[]", "keyring"),
        ("{}", "keyring"),
        ('{"primary": "file:a", "keys": []}', "keyring"),
        ('{"primary": "file:a", "keys": {"file:a": 5}}', "keyring"),
        ('{"primary": "file:a", "keys": {"file:a": "not base64!"}}', "keyring"),
        (json.dumps({"primary": "file:b", "keys": {"file:a": KEY}}), "primary"),
        (json.dumps({"primary": "file:a", "next": "file:b", "keys": {"file:a": KEY}}), "is to be"),
        (json.dumps({"primary": ["file:a"], "keys": {"file:a": KEY}}), "keyring"),
        (json.dumps({"primary": "file:a", "keys": {"file:a": KEY[:20]}}), "32 bytes"),
        (json.dumps({"primary": "a", "keys": {"a": KEY}}), "begin with"),
        ("\udcff", "keyring"),
    ],
)
def test_a_file_that_is_no_keyring_is_refused_without_showing_it(path: Path, content: str, why: str) -> None:
    path.parent.mkdir()
    path.touch(mode=0o600)
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(MasterKeyInvalid, match=why) as caught:
        KeyFile(path)
    assert caught.value.field == "LORRY_MASTER_KEY_FILE"
    assert KEY not in caught.value.message
    assert caught.value.__cause__ is None


def test_a_missing_file_and_a_missing_setting_say_what_to_do(path: Path, tmp_path: Path) -> None:
    with pytest.raises(MasterKeyInvalid, match="lorry keys init"):
        KeyFile(path)
    with pytest.raises(MasterKeyInvalid, match="LORRY_KMS_KEY_ID"):
        open_master_keys(MasterKeySettings())
    with pytest.raises(MasterKeyInvalid, match="cannot be read"):
        KeyFile(tmp_path)


def test_keys_do_not_show_when_things_are_printed(path: Path) -> None:
    keys = KeyFile.create(path)
    secret = next(iter(keys.ring().keys.values()))
    shown: Any = f"{keys!r} {keys.ring()!r} {keys.ring()}"
    assert repr(secret)[2:-1] not in shown
