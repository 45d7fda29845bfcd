"""Uploads in parts, asked of a real S3."""

from __future__ import annotations

import base64
import hashlib
import random

import httpx
import pytest

from kit.errors import ObjectConflict, ObjectMissing
from kit.multipart import MIN_PART_BYTES
from kit.storage import ObjectStorage

FIRST, SECOND = random.Random(3).randbytes(MIN_PART_BYTES), random.Random(4).randbytes(1000)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def test_parts_become_an_object_in_the_order_of_their_numbers(storage: ObjectStorage) -> None:
    upload = await storage.multipart.begin("a")
    second = await storage.multipart.put_part(upload, 2, SECOND)
    first = await storage.multipart.put_part(upload, 1, FIRST)
    with pytest.raises(ObjectMissing):
        await storage.head("a")
    await storage.multipart.complete(upload, [second, first])
    assert await storage.get("a") == FIRST + SECOND
    assert (await storage.head("a")).size_bytes == len(FIRST + SECOND)
    assert b"".join([chunk async for chunk in storage.stream("a")]) == FIRST + SECOND


async def test_others_send_parts_by_signed_urls_and_only_the_declared_bytes(storage: ObjectStorage) -> None:
    upload = await storage.multipart.begin("incoming/v1")
    async with httpx.AsyncClient(timeout=60) as http:
        for number, data in [(1, FIRST), (2, SECOND)]:
            signed = await storage.multipart.sign_part(
                upload, number, sha256=digest(data), size_bytes=len(data), expires_seconds=60
            )
            damaged = bytes([data[0] ^ 1]) + data[1:]
            other = {"x-amz-checksum-sha256": base64.b64encode(hashlib.sha256(damaged).digest()).decode()}
            for content, headers in [
                (damaged, signed.headers),
                (damaged, other),
                (data[1:], signed.headers),
                (data + b"x", signed.headers),
                (data, {}),
            ]:
                refused = await http.put(signed.url, content=content, headers=headers)
                assert refused.status_code in {400, 403}
            elsewhere = signed.url.replace(f"partNumber={number}", "partNumber=7")
            assert (await http.put(elsewhere, content=data, headers=signed.headers)).status_code == 403
            taken = await http.put(signed.url, content=data, headers=signed.headers)
            assert taken.status_code == 200
    parts = await storage.multipart.list_parts(upload)
    assert [(part.number, part.size_bytes) for part in parts] == [(1, len(FIRST)), (2, len(SECOND))]
    await storage.multipart.complete(upload, parts)
    assert await storage.get("incoming/v1") == FIRST + SECOND


async def test_an_upload_is_gone_on_with_from_the_parts_that_arrived(storage: ObjectStorage) -> None:
    begun = await storage.multipart.begin("a")
    await storage.multipart.put_part(begun, 1, FIRST)
    [found] = await storage.multipart.list_unfinished("a")
    assert (found.key, found.id) == ("a", begun.id)
    assert found.begun_at is not None
    [part] = await storage.multipart.list_parts(found)
    assert part.sha256 in {None, digest(FIRST)}
    second = await storage.multipart.put_part(found, 2, SECOND)
    await storage.multipart.complete(found, [part, second])
    assert await storage.get("a") == FIRST + SECOND
    assert await storage.multipart.list_unfinished() == []


async def test_a_part_that_is_sent_again_replaces_the_first(storage: ObjectStorage) -> None:
    upload = await storage.multipart.begin("a")
    await storage.multipart.put_part(upload, 1, SECOND)
    part = await storage.multipart.put_part(upload, 1, FIRST)
    await storage.multipart.complete(upload, [part])
    assert await storage.get("a") == FIRST


async def test_an_aborted_upload_takes_nothing_and_leaves_nothing(storage: ObjectStorage) -> None:
    upload = await storage.multipart.begin("a")
    part = await storage.multipart.put_part(upload, 1, FIRST)
    await storage.multipart.abort(upload)
    await storage.multipart.abort(upload)
    assert await storage.multipart.list_unfinished() == []
    for call in (
        storage.multipart.put_part(upload, 1, FIRST),
        storage.multipart.list_parts(upload),
        storage.multipart.complete(upload, [part]),
        storage.head("a"),
    ):
        with pytest.raises(ObjectMissing):
            await call


async def test_an_upload_in_parts_does_not_replace_what_is_there(storage: ObjectStorage) -> None:
    await storage.put("a", b"first")
    upload = await storage.multipart.begin("a")
    part = await storage.multipart.put_part(upload, 1, FIRST)
    with pytest.raises(ObjectConflict):
        await storage.multipart.complete(upload, [part], only_if_absent=True)
    assert await storage.get("a") == b"first"


async def test_unfinished_uploads_are_listed_below_a_prefix_only(storage: ObjectStorage) -> None:
    begun = [await storage.multipart.begin(key) for key in ("incoming/a", "incoming/b", "else/c")]
    found = await storage.multipart.list_unfinished("incoming/")
    assert {(each.key, each.id) for each in found} == {(each.key, each.id) for each in begun[:2]}
