"""What we ask of an S3, asked of a real one."""

from __future__ import annotations

import asyncio
import base64
import hashlib

import httpx
import pytest
from pydantic import SecretStr

from kit.errors import ObjectConflict, ObjectMissing, StorageUnavailable
from kit.settings import StorageSettings
from kit.storage import ObjectInfo, ObjectStorage

DATA = b"x" * 100
SHA256 = hashlib.sha256(DATA).hexdigest()


async def collect(storage: ObjectStorage, key: str, *, etag: str | None = None) -> bytes:
    return b"".join([chunk async for chunk in storage.stream(key, etag=etag)])


async def test_what_is_put_is_what_is_read(storage: ObjectStorage) -> None:
    data = bytes(range(256)) * 10_000
    await storage.put("a", data)
    assert await storage.get("a") == data
    assert await collect(storage, "a") == data
    assert (await storage.head("a")).size_bytes == len(data)


async def test_a_missing_object_is_missing_by_every_verb(storage: ObjectStorage) -> None:
    for call in (storage.get("no"), storage.head("no"), storage.copy("no", "b"), collect(storage, "no")):
        with pytest.raises(ObjectMissing):
            await call
    await storage.delete("no")


async def test_one_of_many_racers_creates_an_object(storage: ObjectStorage) -> None:
    racers = [storage.put("a", str(i).encode(), only_if_absent=True) for i in range(8)]
    outcomes = await asyncio.gather(*racers, return_exceptions=True)
    assert sum(isinstance(outcome, ObjectInfo) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, ObjectConflict) for outcome in outcomes) == 7


async def test_a_copy_and_a_read_are_guarded_by_the_etag(storage: ObjectStorage) -> None:
    await storage.put("a", DATA)
    etag = (await storage.head("a")).etag
    await storage.copy("a", "b", etag=etag)
    assert await collect(storage, "b", etag=(await storage.head("b")).etag) == DATA
    await storage.put("a", b"other")
    with pytest.raises(ObjectConflict):
        await storage.copy("a", "c", etag=etag)
    with pytest.raises(ObjectConflict):
        await collect(storage, "a", etag=etag)
    with pytest.raises(ObjectMissing):
        await storage.head("c")


async def test_a_listing_is_in_key_order_and_relative_to_the_prefix(storage: ObjectStorage) -> None:
    for key in ("p/b", "p/a", "q/c"):
        await storage.put(key, DATA)
    assert [found.key for found in await storage.list("p/")] == ["p/a", "p/b"]


async def test_a_signed_upload_takes_the_declared_bytes_and_no_others(storage: ObjectStorage) -> None:
    upload = await storage.sign_put("a", sha256=SHA256, size_bytes=100, expires_seconds=60)
    other = base64.b64encode(hashlib.sha256(b"y" * 100).digest()).decode()
    async with httpx.AsyncClient() as http:
        for content, headers in [
            (b"y" * 100, upload.headers),
            (b"x" * 99, upload.headers),
            (b"x" * 101, upload.headers),
            (DATA, {}),
            (b"y" * 100, {"x-amz-checksum-sha256": other}),
        ]:
            assert (await http.put(upload.url, content=content, headers=headers)).status_code in {400, 403}
        with pytest.raises(ObjectMissing):
            await storage.head("a")
        assert (await http.put(upload.url, content=DATA, headers=upload.headers)).status_code == 200
    assert await storage.get("a") == DATA


async def test_a_signed_download_reads_one_object_until_it_expires(storage: ObjectStorage) -> None:
    await storage.put("tenants/t/users/a:b/x", DATA)
    url = await storage.sign_get("tenants/t/users/a:b/x", expires_seconds=3)
    async with httpx.AsyncClient() as http:
        assert (await http.get(url)).content == DATA
        assert (await http.get(url.replace("/x?", "/y?"))).status_code == 403
        await asyncio.sleep(4.2)
        assert (await http.get(url)).status_code == 403


async def test_a_store_that_does_not_answer_is_unavailable(storage_settings: StorageSettings) -> None:
    away = storage_settings.model_copy(update={"s3_endpoint_url": "http://127.0.0.1:9"})
    with pytest.raises(StorageUnavailable):
        await ObjectStorage(away).check()


async def test_a_wrong_secret_is_not_mistaken_for_a_missing_object(storage_settings: StorageSettings) -> None:
    wrong = storage_settings.model_copy(update={"s3_secret_access_key": SecretStr("wrong")})
    with pytest.raises(Exception, match=r"SignatureDoesNotMatch|403|Forbidden") as caught:
        await ObjectStorage(wrong).get("a")
    assert not isinstance(caught.value, ObjectMissing)
