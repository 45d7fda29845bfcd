"""What we ask of an S3, asked of a real one."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

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
    async with httpx.AsyncClient(timeout=60) as http:
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
    url, short = [await storage.sign_get("tenants/t/users/a:b/x", expires_seconds=each) for each in (60, 1)]
    async with httpx.AsyncClient(timeout=60) as http:
        assert (await http.get(url)).content == DATA
        assert (await http.get(url.replace("/x?", "/y?"))).status_code == 403
        await asyncio.sleep(2.2)
        assert (await http.get(short)).status_code == 403


async def test_a_store_that_does_not_answer_is_unavailable(storage_settings: StorageSettings) -> None:
    away = storage_settings.model_copy(update={"s3_endpoint_url": "http://127.0.0.1:9"})
    with pytest.raises(StorageUnavailable):
        await ObjectStorage(away).check()


async def test_a_wrong_secret_is_not_mistaken_for_a_missing_object(storage_settings: StorageSettings) -> None:
    wrong = storage_settings.model_copy(update={"s3_secret_access_key": SecretStr("wrong")})
    with pytest.raises(Exception, match=r"SignatureDoesNotMatch|403|Forbidden") as caught:
        await ObjectStorage(wrong).get("a")
    assert not isinstance(caught.value, ObjectMissing)


async def test_the_same_bytes_again_are_no_conflict(storage: ObjectStorage) -> None:
    first = await storage.put("a", DATA, only_if_absent=True)
    assert (await storage.put("a", DATA, only_if_absent=True)).etag == first.etag
    with pytest.raises(ObjectConflict):
        await storage.put("a", b"other", only_if_absent=True)
    assert await storage.get("a") == DATA


async def test_an_object_is_replaced_only_if_it_is_the_one_that_was_read(storage: ObjectStorage) -> None:
    first = await storage.put("a", b"1")
    racers = [storage.put("a", f"next {i}".encode(), if_etag=first.etag) for i in range(8)]
    outcomes = await asyncio.gather(*racers, return_exceptions=True)
    assert sum(isinstance(outcome, ObjectInfo) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, ObjectConflict) for outcome in outcomes) == 7
    with pytest.raises((ObjectConflict, ObjectMissing)):
        await storage.put("none", b"1", if_etag=first.etag)


async def test_the_store_keeps_the_digest_of_what_it_took(storage: ObjectStorage) -> None:
    await storage.put("a", DATA)
    assert (await storage.head("a")).sha256 == SHA256


async def test_thousands_of_objects_are_removed_in_few_calls(storage: ObjectStorage) -> None:
    keys = [f"many/{number:04}" for number in range(1203)]
    for at in range(0, len(keys), 100):
        await asyncio.gather(*(storage.put(key, b"x") for key in keys[at : at + 100]))
    assert [found.key for found in await storage.list("many/")] == keys
    page = await storage.list_page("many/", after=keys[49], limit=10)
    assert [found.key for found in page] == keys[50:60]
    await storage.put("many-more", b"stays")
    await storage.delete_many([*keys, "many/not-there"])
    assert [found.key for found in await storage.list("")] == ["many-more"]


async def test_erasing_leaves_no_version_in_a_bucket_that_keeps_them(versioned: ObjectStorage) -> None:
    for content in (b"1", b"2", b"3"):
        await versioned.put("users/ann/a", content)
    await versioned.put("users/ann/b", b"1")
    await versioned.put("users/anne/a", b"stays")
    assert await versioned.count_versions("users/ann/") == 4
    assert await versioned.erase("users/ann/") == 4
    assert await versioned.count_versions("users/ann/") == 0
    assert await versioned.get("users/anne/a") == b"stays"
    assert await versioned.erase("users/ann/") == 0


async def test_deleting_leaves_no_version_and_touches_no_other_key(versioned: ObjectStorage) -> None:
    """An upload that was moved on is gone, whatever the bucket is set to."""
    for key in ("incoming/a", "incoming/a", "incoming/ab", "incoming/b", "incoming/c"):
        await versioned.put(key, key.encode() * 2)
        await versioned.put(key, key.encode())
    await versioned.delete("incoming/a")
    await versioned.delete_many(["incoming/b", "incoming/c", "incoming/none"])
    assert [found.key for found in await versioned.list("")] == ["incoming/ab"]
    assert await versioned.count_versions("incoming/") == 2
    assert await versioned.get("incoming/ab") == b"incoming/ab"


async def test_erasing_finds_what_was_hidden_by_delete_markers(
    versioned: ObjectStorage, storage_settings: StorageSettings
) -> None:
    await versioned.put("a", b"1")
    unaware = ObjectStorage(storage_settings.model_copy(update={"s3_bucket": "lorry-versioned"}))
    unaware._versioning = (float("inf"), False)  # as if versioning had been turned on a moment ago
    await unaware.delete("a")
    assert await versioned.list("") == []
    assert await versioned.count_versions("") == 2
    assert await versioned.erase("") == 2
    assert await versioned.count_versions("") == 0


async def test_erasing_works_without_versions_as_well(storage: ObjectStorage) -> None:
    await storage.put("p/a", DATA)
    await storage.put("p/b", DATA)
    assert await storage.erase("p/") == 2
    assert await storage.list("") == []


@pytest.mark.parametrize("chosen", ["AES256", "aws:kms"])
async def test_the_store_encrypts_at_rest_when_it_is_told_to(storage_settings: StorageSettings, chosen: str) -> None:
    key_id = "lorry-test-key" if chosen == "aws:kms" else None
    storage = ObjectStorage(storage_settings.model_copy(update={"s3_sse": chosen, "s3_sse_kms_key_id": key_id}))
    await storage.put("a", DATA)
    await storage.copy("a", "b")
    signed = await storage.sign_put("c", sha256=SHA256, size_bytes=100, expires_seconds=60)
    async with httpx.AsyncClient(timeout=60) as http:
        assert (await http.put(signed.url, content=DATA, headers=signed.headers)).status_code == 200
        upload = await storage.multipart.begin("d")
        part = await storage.multipart.put_part(upload, 1, DATA)
        await storage.multipart.complete(upload, [part])
        for key in ("a", "b", "c", "d"):
            answer = await http.get(await storage.sign_get(key, expires_seconds=60))
            assert answer.content == DATA, key
            assert answer.headers["x-amz-server-side-encryption"] == chosen, key


async def test_a_bucket_that_is_not_there_is_an_outage_with_a_reason(storage_settings: StorageSettings) -> None:
    away = ObjectStorage(storage_settings.model_copy(update={"s3_bucket": "no-such-bucket"}))
    with pytest.raises(StorageUnavailable, match="LORRY_S3_BUCKET"):
        await away.check()


async def test_without_credentials_nothing_is_signed(
    storage_settings: StorageSettings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    anonymous = storage_settings.model_copy(update={"s3_access_key_id": None, "s3_secret_access_key": None})
    with pytest.raises(StorageUnavailable, match="LORRY_S3_ACCESS_KEY_ID"):
        await ObjectStorage(anonymous).sign_get("a", expires_seconds=60)
    with pytest.raises(StorageUnavailable, match="credentials"):
        await ObjectStorage(anonymous).get("a")


@pytest.fixture
async def versioned(storage_settings: StorageSettings) -> AsyncIterator[ObjectStorage]:
    """An object store in a bucket that keeps versions."""
    storage = ObjectStorage(storage_settings.model_copy(update={"s3_bucket": "lorry-versioned"}))
    await storage.create_bucket()
    await storage.keep_versions()
    yield storage
    await storage.erase("")
