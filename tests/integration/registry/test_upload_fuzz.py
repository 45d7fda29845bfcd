"""Uploads that somebody has tampered with: nothing becomes ready that is not whole, declared and servable."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from kit.canonical import sha256_bytes
from kit.sealing import HEADER_BYTES
from kit.storage import ObjectStorage
from registry.client import RegistryClient, draft_from_directory
from registry.client.transfer import seal_directory
from registry.errors import AdapterInvalid, DigestMismatch, NotServable
from registry.manifest import WEIGHTS_FILE, Draft, ManifestFile, Owner
from registry.publishing.schemas import SealedUpload
from tests.support.adapters import BASE, write_adapter

ROUNDS = 25


def owner(number: int) -> Owner:
    return Owner(tenant="default", user=f"u{number}")


def flip(data: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << dice.randrange(8))]) + data[at + 1 :]


def cut(data: bytes, dice: random.Random) -> bytes:
    return data[: dice.randrange(len(data))]


def drop_a_piece(data: bytes, dice: random.Random) -> bytes:
    begin, length = dice.randrange(len(data)), dice.randrange(1, 64)
    return data[:begin] + data[begin + length :]


def double_a_piece(data: bytes, dice: random.Random) -> bytes:
    begin, length = dice.randrange(len(data)), dice.randrange(1, 64)
    return data[: begin + length] + data[begin:]


def append(data: bytes, dice: random.Random) -> bytes:
    return data + dice.randbytes(dice.randrange(1, 64))


def change_the_header(data: bytes, dice: random.Random) -> bytes:
    return flip(data[:HEADER_BYTES], dice) + data[HEADER_BYTES:]


TAMPERINGS: list[Callable[[bytes, random.Random], bytes]] = [
    flip,
    cut,
    drop_a_piece,
    double_a_piece,
    append,
    change_the_header,
]


@pytest.mark.parametrize("tamper", TAMPERINGS)
async def test_a_sealed_upload_that_was_tampered_with_never_becomes_ready(
    client: RegistryClient, storage: ObjectStorage, tmp_path: Path, tamper: Callable[..., bytes]
) -> None:
    directory = write_adapter(tmp_path / "a")
    dice = random.Random(tamper.__name__)
    publication = await client.begin(draft_from_directory(directory, owner=owner(0), base=BASE))
    assert isinstance(publication.upload, SealedUpload)
    sealed = b"".join(map(bytes, seal_directory(directory, publication.manifest, key=publication.upload.content_key)))
    key = f"tenants/default/users/u0/versions/{publication.version_id}"
    for _ in range(ROUNDS):
        changed = tamper(sealed, dice)
        if changed == sealed:
            continue
        await storage.put(key, changed)
        with pytest.raises(DigestMismatch):
            await client.complete(publication.version_id)
        with pytest.raises(NotServable):
            await client.grant(publication.version_id)
        assert await storage.list("") == []
    await storage.put(key, sealed)
    await client.complete(publication.version_id)
    await client.download(await client.grant(publication.version_id), tmp_path / "b")


async def test_weights_that_were_changed_and_declared_so_are_rejected_or_sound(
    client: RegistryClient, tmp_path: Path
) -> None:
    """A stranger declares whatever bytes they like; what becomes ready is what any client would publish as well."""
    good, dice = (write_adapter(tmp_path / "a") / WEIGHTS_FILE).read_bytes(), random.Random(7)
    header_end = 8 + int.from_bytes(good[:8], "little")
    outcomes = {"ready": 0, "rejected": 0}
    for number in range(ROUNDS * 2):
        start = 0 if number % 2 else header_end  # every other time the header, else the values
        part = good[start : header_end if number % 2 else len(good)]
        changed = good[:start] + dice.choice(TAMPERINGS[:5])(part, dice) + good[start + len(part) :]
        directory = tmp_path / f"b{number}"
        outcome = await publish_strangely(client, directory, changed, number)
        outcomes[outcome] += 1
        if outcome == "ready":
            draft_from_directory(directory, owner=owner(number), base=BASE)
    assert min(outcomes.values()) > 0, outcomes


async def publish_strangely(client: RegistryClient, directory: Path, weights: bytes, number: int) -> str:
    """Publish what no client of ours would; return what became of it."""
    draft = declare(write_adapter(directory), weights, number)
    (directory / WEIGHTS_FILE).write_bytes(weights)
    publication = await client.begin(draft)
    await client.upload(publication, directory)
    try:
        await client.complete(publication.version_id)
    except AdapterInvalid:
        report = (await client.get_validation(publication.version_id)).report
        assert report is not None
        assert report.errors
        return "rejected"
    await client.read_back(await client.grant(publication.version_id))
    return "ready"


def declare(directory: Path, weights: bytes, number: int) -> Draft:
    draft = draft_from_directory(directory, owner=owner(number), base=BASE)
    file = ManifestFile(path=WEIGHTS_FILE, size_bytes=len(weights), sha256=sha256_bytes(weights))
    return draft.model_copy(update={"files": (draft.files[0], file)})


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"parts": []},
        {"parts": [{"number": 0, "sha256": "0" * 64}]},
        {"parts": [{"number": 1, "sha256": "zz"}]},
        {"parts": [{"number": 2**40, "sha256": "0" * 64}]},
        {"parts": [{"number": 1, "sha256": "0" * 64}] * 101},
        {"parts": "x"},
        [],
    ],
)
async def test_strange_requests_for_parts_are_refused(
    client: RegistryClient, registry_url: str, tmp_path: Path, body: Any
) -> None:
    publication = await client.begin(draft_from_directory(write_adapter(tmp_path / "a"), owner=owner(0), base=BASE))
    url = f"{registry_url}/v1/versions/{publication.version_id}/parts"
    async with httpx.AsyncClient(timeout=60, headers={"authorization": "Bearer a-token-for-tests-only"}) as http:
        assert (await http.post(url, json=body)).status_code == 422
        sound = {"parts": [{"number": 1, "sha256": "0" * 64}]}
        assert (await http.post(url, json=sound)).status_code == 409  # it is small, and comes in one piece
