"""Publish: begin → upload → complete, against real PostgreSQL and S3 over real HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from kit.canonical import sha256_bytes
from kit.database import Database
from kit.storage import ObjectStorage
from registry.artifact.findings import ValidationReport
from registry.client import RegistryClient, draft_from_directory
from registry.client.transfer import seal_directory
from registry.errors import (
    AdapterInvalid,
    ArtifactMissing,
    BaseModelIncomplete,
    BaseModelMismatch,
    BaseModelNotFound,
    BaseModelUnreadable,
    DigestMismatch,
    NotServable,
    VersionConflict,
    VersionNotFound,
)
from registry.manifest import CONFIG_FILE, SHARED, WEIGHTS_FILE, AdapterRef, Draft, Lineage, Manifest, Owner
from registry.publishing.intake import Intake, Unfinished
from registry.publishing.schemas import OpenUpload, Preference, SealedUpload
from tests.support.adapters import (
    BASE,
    BASE_CONFIG,
    empty_weights,
    lora_shapes,
    poisoned,
    safetensors_bytes,
    wide_base,
    with_header,
    write_adapter,
)
from tests.support.registry_server import OWNER
from tests.support.versions import execute
from tests.support.waiting import until


def draft(directory: Path, *, owner: Owner = OWNER, version: int | None = None) -> Draft:
    return draft_from_directory(directory, owner=owner, base=BASE, version=version)


async def publish(client: RegistryClient, directory: Path, **changes: int | None) -> Manifest:
    return await client.publish(directory, draft=draft(directory, **changes))  # type: ignore[arg-type]


async def test_a_published_adapter_is_what_was_on_disk(
    client: RegistryClient, storage: ObjectStorage, tmp_path: Path
) -> None:
    directory = write_adapter(tmp_path / "a")
    lineage = Lineage(seed=7, hyperparameters={"learning_rate": 5e-4, "big": 1e16})
    wanted = draft_from_directory(directory, owner=OWNER, base=BASE, lineage=lineage, evaluation={"loss": 1.5})
    progress: list[tuple[int, int]] = []
    manifest = await client.publish(directory, draft=wanted, on_progress=lambda *step: progress.append(step))
    assert (manifest.version, manifest.owner, manifest.content_digest) == (1, OWNER, wanted.content_digest)
    assert (manifest.lineage, manifest.evaluation) == (lineage, {"loss": 1.5})
    assert progress[-1][0] == progress[-1][1] > sum(file.size_bytes for file in wanted.files)

    resolution = await client.get_version(manifest.version_id)
    assert resolution.manifest == manifest
    assert resolution.manifest.digest == manifest.digest
    await client.download(resolution, tmp_path / "b")
    assert (tmp_path / "b" / WEIGHTS_FILE).read_bytes() == (directory / WEIGHTS_FILE).read_bytes()
    assert draft(tmp_path / "b").content_digest == wanted.content_digest

    keys = [found.key for found in await storage.list("")]
    assert keys == [f"tenants/default/users/ann/versions/{manifest.version_id}"]
    stored = await storage.get(keys[0])
    assert len(stored) == (await client.grant(manifest.version_id)).sealed_bytes
    assert b"lora_A" not in stored
    assert (directory / WEIGHTS_FILE).read_bytes()[-64:] not in stored


async def test_publishing_the_same_content_again_is_the_same_version(client: RegistryClient, tmp_path: Path) -> None:
    first = await publish(client, write_adapter(tmp_path / "a"))
    publication = await client.begin(draft(tmp_path / "a"))
    assert (publication.version_id, publication.state, publication.upload) == (first.version_id, "ready", None)
    assert await publish(client, tmp_path / "a") == first
    assert await client.complete(first.version_id) == first


async def test_other_content_is_the_next_version(client: RegistryClient, tmp_path: Path) -> None:
    numbers = [(await publish(client, write_adapter(tmp_path / str(i), seed=i))).version for i in range(3)]
    assert numbers == [1, 2, 3]
    found = await client.list_versions(OWNER, "profile")
    assert [(version.version, version.state) for version in found] == [(3, "ready"), (2, "ready"), (1, "ready")]


async def test_two_users_with_identical_bytes_have_two_versions(client: RegistryClient, tmp_path: Path) -> None:
    directory = write_adapter(tmp_path / "a")
    ann = await publish(client, directory)
    bob = await client.publish(directory, draft=draft(directory, owner=Owner(tenant="default", user="bob")))
    assert ann.version_id != bob.version_id


async def test_a_number_with_other_content_is_a_conflict_that_changes_nothing(
    client: RegistryClient, tmp_path: Path
) -> None:
    first = await publish(client, write_adapter(tmp_path / "a"), version=5)
    assert first.version == 5
    with pytest.raises(VersionConflict, match="different content") as caught:
        await publish(client, write_adapter(tmp_path / "b", seed=1), version=5)
    assert caught.value.field == "version"
    with pytest.raises(VersionConflict, match="version 5 already"):
        await publish(client, tmp_path / "a", version=6)
    assert await publish(client, tmp_path / "a", version=5) == first
    assert [version.version for version in await client.list_versions(OWNER, "profile")] == [5]


async def test_an_unknown_base_is_refused(client: RegistryClient, tmp_path: Path) -> None:
    directory = write_adapter(tmp_path / "a")
    stranger = BASE.model_copy(update={"id": "stranger"})
    with pytest.raises(BaseModelNotFound, match="register it first") as caught:
        await client.begin(draft_from_directory(directory, owner=OWNER, base=stranger))
    assert caught.value.field == "base.id"


async def test_a_base_with_other_digests_is_refused_by_the_digest_that_differs(
    client: RegistryClient, tmp_path: Path
) -> None:
    directory = write_adapter(tmp_path / "a")
    other = BASE.model_copy(update={"tokenizer_sha256": "f" * 64})
    with pytest.raises(BaseModelMismatch, match="tokenizer_sha256") as caught:
        await client.begin(draft_from_directory(directory, owner=OWNER, base=other))
    assert caught.value.field == "base.tokenizer_sha256"
    with pytest.raises(BaseModelMismatch):
        await client.register_base(other)
    assert [base.identity for base in await client.list_bases()] == [BASE]
    assert (await client.list_adapters("default")).adapters == ()


async def test_a_begun_version_does_not_resolve(client: RegistryClient, tmp_path: Path) -> None:
    publication = await client.begin(draft(write_adapter(tmp_path / "a")))
    assert publication.state == "pending"
    assert isinstance(publication.upload, SealedUpload)
    with pytest.raises(NotServable):
        await client.get_version(publication.version_id)


async def test_beginning_again_gives_the_same_version_and_fresh_urls(client: RegistryClient, tmp_path: Path) -> None:
    directory = write_adapter(tmp_path / "a")
    first, second = await client.begin(draft(directory)), await client.begin(draft(directory))
    assert first.version_id == second.version_id
    await client.upload(second, directory)
    await client.upload(second, directory)
    assert (await client.complete(first.version_id)).version == 1


@pytest.mark.parametrize("preference", list(Preference))
async def test_what_was_never_uploaded_is_named(client: RegistryClient, tmp_path: Path, preference: Preference) -> None:
    directory = write_adapter(tmp_path / "a")
    publication = await client.begin(draft(directory), preference=preference)
    with pytest.raises(ArtifactMissing) as caught:
        await client.complete(publication.version_id)
    assert caught.value.field == WEIGHTS_FILE
    with pytest.raises(NotServable):
        await client.get_version(publication.version_id)
    await client.upload(publication, directory)
    await client.complete(publication.version_id)


async def test_an_adapter_uploaded_in_the_open_is_sealed_and_the_upload_removed(
    client: RegistryClient, storage: ObjectStorage, tmp_path: Path
) -> None:
    directory = write_adapter(tmp_path / "a")
    publication = await client.begin(draft(directory), preference=Preference.OPEN)
    assert isinstance(publication.upload, OpenUpload)
    await client.upload(publication, directory)
    manifest = await client.complete(publication.version_id)
    await client.download(await client.grant(manifest.version_id), tmp_path / "b")
    assert draft(tmp_path / "b").content_digest == manifest.content_digest
    await nothing_incoming(storage)
    (sealed,) = await storage.list("")
    assert b"lora_A" not in await storage.get(sealed.key)


@pytest.mark.parametrize("preference", list(Preference))
async def test_an_adapter_that_is_larger_than_one_look_is_read_and_sealed_in_pieces(
    client: RegistryClient, storage: ObjectStorage, tmp_path: Path, preference: Preference
) -> None:
    base, config = wide_base(16384)
    await client.register_base(base, config=config)
    directory = write_adapter(tmp_path / "a", rank=16)
    (directory / WEIGHTS_FILE).write_bytes(empty_weights(lora_shapes(rank=16, hidden=16384)))
    wanted = draft_from_directory(directory, owner=OWNER, base=base)
    assert wanted.files[1].size_bytes > 24 << 20
    publication = await client.begin(wanted, preference=preference)
    await client.upload(publication, directory)
    manifest = await client.complete(publication.version_id)
    await client.download(await client.grant(manifest.version_id), tmp_path / "b")
    await nothing_incoming(storage)
    assert await storage.multipart.list_unfinished() == []
    (sealed,) = await storage.list("")
    assert sealed.size_bytes == (await client.grant(manifest.version_id)).sealed_bytes


async def nothing_incoming(storage: ObjectStorage) -> None:
    """Uploads are removed behind the back of requests."""

    async def is_empty() -> bool:
        return not await storage.list("incoming/")

    await until(is_empty)


def bad_uploads() -> list[Any]:
    def flipped(data: bytes) -> bytes:
        return data[:-40] + bytes([data[-40] ^ 1]) + data[-39:]

    return [
        pytest.param(flipped, id="a flipped bit"),
        pytest.param(lambda data: data[:-1], id="truncated"),
        pytest.param(lambda data: data + b"x", id="appended"),
        pytest.param(lambda data: bytes(len(data)), id="zeros"),
        pytest.param(lambda data: b"", id="nothing"),
    ]


@pytest.mark.parametrize("damage", bad_uploads())
async def test_a_damaged_sealed_upload_is_refused_and_can_be_sent_again(
    client: RegistryClient, storage: ObjectStorage, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    directory = write_adapter(tmp_path / "a")
    publication = await client.begin(draft(directory))
    await client.upload(publication, directory)
    (sealed,) = await storage.list("tenants/")
    await storage.put(sealed.key, damage(await storage.get(sealed.key)))
    with pytest.raises(DigestMismatch) as caught:
        await client.complete(publication.version_id)
    assert caught.value.field == WEIGHTS_FILE
    assert await storage.list("") == []
    with pytest.raises(NotServable):
        await client.get_version(publication.version_id)
    await client.upload(publication, directory)
    await client.complete(publication.version_id)


async def test_nobody_waits_for_a_damaged_upload_to_be_read(
    client: RegistryClient,
    storage: ObjectStorage,
    database: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    directory = write_adapter(tmp_path / "a")
    publication = await client.begin(draft(directory))
    await client.upload(publication, directory)
    (sealed,) = await storage.list("tenants/")
    await storage.put(sealed.key, (await storage.get(sealed.key))[:-1] + b"\0")
    reads, read_sealed = 0, Intake.read_sealed

    async def locking(intake: Intake, version: Unfinished) -> ValidationReport:
        nonlocal reads
        reads += 1
        lock = "select version_id from adapter_version where version_id = :id for update nowait"
        assert await execute(database, lock, id=publication.version_id) == publication.version_id
        return await read_sealed(intake, version)

    monkeypatch.setattr(Intake, "read_sealed", locking)
    with pytest.raises(DigestMismatch):
        await client.complete(publication.version_id)
    assert reads == 2
    assert await storage.list("") == []


async def test_an_upload_sealed_with_another_versions_key_is_refused(
    client: RegistryClient, storage: ObjectStorage, tmp_path: Path
) -> None:
    first, second = (write_adapter(tmp_path / name, seed=seed) for seed, name in enumerate("ab"))
    theirs, ours = await client.begin(draft(first)), await client.begin(draft(second))
    assert isinstance(theirs.upload, SealedUpload)
    assert isinstance(ours.upload, SealedUpload)
    assert theirs.upload.content_key != ours.upload.content_key
    wrong = b"".join(map(bytes, seal_directory(second, ours.manifest, key=theirs.upload.content_key)))
    async with httpx.AsyncClient(timeout=60) as http:
        (await http.put(ours.upload.url, headers=ours.upload.headers, content=wrong)).raise_for_status()
    with pytest.raises(DigestMismatch, match="another key"):
        await client.complete(ours.version_id)


async def test_nothing_is_written_over_a_sealed_upload(
    client: RegistryClient, storage: ObjectStorage, tmp_path: Path
) -> None:
    directory = write_adapter(tmp_path / "a")
    publication = await client.begin(draft(directory))
    await client.upload(publication, directory)
    manifest = await client.complete(publication.version_id)
    (before,) = await storage.list("")
    assert isinstance(publication.upload, SealedUpload)
    async with httpx.AsyncClient(timeout=60) as http:
        again = bytes(before.size_bytes)
        answer = await http.put(publication.upload.url, headers=publication.upload.headers, content=again)
    assert answer.status_code == 412
    assert [found.etag for found in await storage.list("")] == [before.etag]
    await client.read_back(await client.grant(manifest.version_id))


@pytest.mark.parametrize("data", [b"short", None], ids=["wrong size", "wrong bytes"])
async def test_wrong_bytes_in_the_open_are_refused_and_can_be_uploaded_again(
    client: RegistryClient, storage: ObjectStorage, tmp_path: Path, data: bytes | None
) -> None:
    directory = write_adapter(tmp_path / "a")
    publication = await client.begin(draft(directory), preference=Preference.OPEN)
    await client.upload(publication, directory)
    key = f"incoming/{publication.version_id}/{WEIGHTS_FILE}"
    await storage.put(key, data or bytes(len(await storage.get(key))))
    with pytest.raises(DigestMismatch) as caught:
        await client.complete(publication.version_id)
    assert caught.value.field == WEIGHTS_FILE
    with pytest.raises(NotServable):
        await client.get_version(publication.version_id)
    await client.upload(publication, directory)
    await client.complete(publication.version_id)


async def test_the_store_refuses_bytes_that_were_not_declared(client: RegistryClient, tmp_path: Path) -> None:
    publication = await client.begin(draft(write_adapter(tmp_path / "a")), preference=Preference.OPEN)
    upload = publication.upload
    assert isinstance(upload, OpenUpload)
    size_bytes = next(file.size_bytes for file in publication.manifest.files if file.path == WEIGHTS_FILE)
    async with httpx.AsyncClient(timeout=60) as http:
        answer = await http.put(upload.url, headers=upload.headers, content=bytes(size_bytes))
    assert answer.status_code == 400


@pytest.mark.parametrize("preference", list(Preference))
async def test_a_directory_that_changed_after_it_was_digested_is_not_sent(
    client: RegistryClient, storage: ObjectStorage, tmp_path: Path, preference: Preference
) -> None:
    directory = write_adapter(tmp_path / "a")
    publication = await client.begin(draft(directory), preference=preference)
    write_adapter(directory, seed=1)
    with pytest.raises(DigestMismatch, match="changed"):
        await client.upload(publication, directory)
    assert await storage.list("") == []
    write_adapter(directory)
    await client.upload(publication, directory)
    await client.complete(publication.version_id)


@pytest.mark.parametrize("change", ["grown", "shrunk", "gone", "last byte"])
async def test_nothing_is_left_in_the_store_when_a_large_file_changes_under_its_publisher(
    client: RegistryClient, storage: ObjectStorage, tmp_path: Path, change: str
) -> None:
    """By then most of it is on its way: what the store was promised never comes whole."""
    base, config = wide_base(4096)
    await client.register_base(base, config=config)
    directory = write_adapter(tmp_path / "a", rank=16)
    weights = directory / WEIGHTS_FILE
    whole = empty_weights(lora_shapes(rank=16, hidden=4096))
    weights.write_bytes(whole)
    assert len(whole) > 4 << 20
    publication = await client.begin(draft_from_directory(directory, owner=OWNER, base=base))
    changed = {"grown": whole + b"x", "shrunk": whole[:-1], "last byte": whole[:-1] + b"\1"}
    weights.write_bytes(changed[change]) if change in changed else weights.unlink()
    with pytest.raises(AdapterInvalid if change == "gone" else DigestMismatch):
        await client.upload(publication, directory)
    assert await storage.list("") == []
    weights.write_bytes(whole)
    await client.upload(publication, directory)
    await client.complete(publication.version_id)


async def test_a_publisher_is_told_how_far_its_upload_is_and_may_stop_it(
    client: RegistryClient, storage: ObjectStorage, tmp_path: Path
) -> None:
    directory = write_adapter(tmp_path / "a")
    publication = await client.begin(draft(directory))
    loop, told = asyncio.get_running_loop(), list[tuple[int, int]]()

    def stop(sent_bytes: int, of_bytes: int) -> None:
        raise TimeoutError("enough")

    def tell(sent_bytes: int, of_bytes: int) -> None:
        assert asyncio.get_running_loop() is loop
        told.append((sent_bytes, of_bytes))

    with pytest.raises(TimeoutError, match="enough"):
        await client.upload(publication, directory, on_progress=stop)
    assert await storage.list("") == []
    await client.upload(publication, directory, on_progress=tell)
    (sealed,) = await storage.list("")
    assert told[-1] == (sealed.size_bytes, sealed.size_bytes)
    assert told == sorted(told)
    await client.complete(publication.version_id)


async def hostile(client: RegistryClient, tmp_path: Path, data: bytes, preference: Preference) -> str:
    """Begin with a draft that matches hostile weights, as a stranger's own client would, and put them in place."""
    directory = write_adapter(tmp_path / "a")
    good = draft(directory)
    files = tuple(
        file.model_copy(update={"size_bytes": len(data), "sha256": sha256_bytes(data)})
        if file.path == WEIGHTS_FILE
        else file
        for file in good.files
    )
    (directory / WEIGHTS_FILE).write_bytes(data)
    publication = await client.begin(good.model_copy(update={"files": files}), preference=preference)
    await client.upload(publication, directory)
    return publication.version_id


@pytest.mark.parametrize("preference", list(Preference))
@pytest.mark.parametrize(
    ("data", "codes"),
    [
        (b"PK\x03\x04 an archive", {"header"}),
        (b"\x80\x04\x95 a pickle that is longer than eight bytes", {"header"}),
        (with_header({"nul\x00": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"1234"), None),
        (safetensors_bytes(lora_shapes(layers=3)), {"no-such-layer"}),
        (safetensors_bytes(lora_shapes(hidden=16)), {"other-features"}),
        (safetensors_bytes(lora_shapes(rank=8)), {"rank"}),
        (poisoned(float("nan")), {"value"}),
        (poisoned(float("-inf")), {"value"}),
        (poisoned(1e6), {"value"}),
        (
            safetensors_bytes({**lora_shapes(modules=["q_proj"]), "lm_head.weight": (2, 2)}),
            {"tensor-name", "no-tensors"},
        ),
    ],
)
async def test_a_hostile_upload_is_rejected_for_good_and_leaves_no_file(
    client: RegistryClient,
    storage: ObjectStorage,
    tmp_path: Path,
    data: bytes,
    codes: set[str] | None,
    preference: Preference,
) -> None:
    version_id = await hostile(client, tmp_path, data, preference)
    with pytest.raises(AdapterInvalid) as first:
        await client.complete(version_id)
    findings = first.value.details["findings"]
    assert findings
    assert codes is None or {finding["code"] for finding in findings} == codes
    with pytest.raises(AdapterInvalid) as second:
        await client.complete(version_id)
    assert (second.value.message, second.value.field) == (first.value.message, first.value.field)
    assert second.value.details == first.value.details
    with pytest.raises(NotServable):
        await client.get_version(version_id)
    with pytest.raises(NotServable):
        await client.grant(version_id)
    await nothing_incoming(storage)
    assert await storage.list("") == []
    recorded = await client.get_validation(version_id)
    assert (recorded.state, recorded.reason) == ("rejected", first.value.message)
    assert recorded.report is not None
    assert [finding.model_dump() for finding in recorded.report.findings] == findings
    (tmp_path / "a" / WEIGHTS_FILE).unlink()
    assert (await publish(client, write_adapter(tmp_path / "a"))).version == 2


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"peft_type": "IA3"}, f"{CONFIG_FILE}:peft_type"),
        ({"use_dora": True}, f"{CONFIG_FILE}:use_dora"),
        ({"r": 8}, "lora.rank"),
    ],
)
async def test_a_configuration_that_cannot_be_served_is_refused_before_anything_is_claimed(
    client: RegistryClient, tmp_path: Path, changes: dict[str, Any], field: str
) -> None:
    good = draft(write_adapter(tmp_path / "a"))
    with pytest.raises(AdapterInvalid) as caught:
        await client.begin(good.model_copy(update={"config": {**good.config, **changes}}))
    assert caught.value.field == field
    assert (await client.list_adapters("default")).adapters == ()


async def test_a_configuration_that_is_not_the_declared_one_is_refused(client: RegistryClient, tmp_path: Path) -> None:
    good = draft(write_adapter(tmp_path / "a"))
    with pytest.raises(DigestMismatch) as caught:
        await client.begin(good.model_copy(update={"config": {**good.config, "lora_dropout": 0.5}}))
    assert caught.value.field == CONFIG_FILE


async def test_a_ready_version_tells_what_was_checked(client: RegistryClient, tmp_path: Path) -> None:
    manifest = await publish(client, write_adapter(tmp_path / "a"))
    found = await client.get_validation(manifest.version_id)
    assert found.report is not None
    assert found.report.findings == ()
    assert found.report.checks == ("configuration", "header", "tensors", "values", "base")


async def test_nothing_is_published_for_a_base_without_its_configuration(
    client: RegistryClient, tmp_path: Path
) -> None:
    bare = BASE.model_copy(update={"id": "bare"})
    await client.register_base(bare)
    wanted = draft_from_directory(write_adapter(tmp_path / "a"), owner=OWNER, base=bare)
    with pytest.raises(BaseModelIncomplete, match=r"config\.json"):
        await client.begin(wanted)
    assert (await client.register_base(bare, config=BASE_CONFIG)).shape is not None
    await client.publish(tmp_path / "a", draft=wanted)
    assert (await client.register_base(bare)).shape is not None


@pytest.mark.parametrize("config", [b"{}", BASE_CONFIG + b" "])
async def test_a_base_is_not_registered_with_another_ones_configuration(client: RegistryClient, config: bytes) -> None:
    with pytest.raises(BaseModelUnreadable, match="config_sha256"):
        await client.register_base(BASE.model_copy(update={"id": "other"}), config=config)


async def test_an_adapter_may_be_shared_by_a_tenant(client: RegistryClient, tmp_path: Path) -> None:
    directory = write_adapter(tmp_path / "a")
    shared = Owner(tenant="default", user=SHARED)
    manifest = await client.publish(
        directory, draft=draft_from_directory(directory, owner=shared, adapter="house", base=BASE)
    )
    assert (await client.resolve(AdapterRef.parse("shared/house@1"))).manifest == manifest
    await client.download(await client.grant(manifest.version_id), tmp_path / "b")


async def test_an_unknown_version_cannot_be_completed(client: RegistryClient) -> None:
    with pytest.raises(VersionNotFound):
        await client.complete("v" + "0" * 32)


async def test_racing_publishers_of_the_same_content_make_one_version(client: RegistryClient, tmp_path: Path) -> None:
    directory = write_adapter(tmp_path / "a")
    manifests = await asyncio.gather(*[publish(client, directory) for _ in range(8)])
    assert len({manifest.version_id for manifest in manifests}) == 1
    assert len(await client.list_versions(OWNER, "profile")) == 1
    await client.download(await client.get_version(manifests[0].version_id), tmp_path / "b")


async def test_racing_publishers_of_different_content_get_different_numbers(
    client: RegistryClient, tmp_path: Path
) -> None:
    directories = [write_adapter(tmp_path / str(seed), seed=seed) for seed in range(8)]
    manifests = await asyncio.gather(*[publish(client, directory) for directory in directories])
    assert sorted(manifest.version for manifest in manifests) == list(range(1, 9))
    assert len({manifest.version_id for manifest in manifests}) == 8


async def test_of_racers_for_one_number_one_wins_and_the_others_are_told(
    client: RegistryClient, tmp_path: Path
) -> None:
    directories = [write_adapter(tmp_path / str(seed), seed=seed) for seed in range(6)]
    outcomes = await asyncio.gather(*[publish(client, d, version=3) for d in directories], return_exceptions=True)
    assert sum(isinstance(outcome, Manifest) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, VersionConflict) for outcome in outcomes) == 5


@pytest.mark.parametrize("preference", list(Preference))
async def test_a_publisher_overtaken_by_another_leaves_no_upload(
    client: RegistryClient, storage: ObjectStorage, tmp_path: Path, preference: Preference
) -> None:
    directory = write_adapter(tmp_path / "a")
    slow = await client.begin(draft(directory), preference=preference)
    quick = await client.publish(directory, draft=draft(directory))
    await client.upload(slow, directory)
    assert await client.complete(slow.version_id) == quick
    await nothing_incoming(storage)
    await client.read_back(await client.grant(quick.version_id))


@pytest.mark.parametrize("preference", list(Preference))
async def test_racing_completions_of_one_version_all_succeed(
    client: RegistryClient, tmp_path: Path, preference: Preference
) -> None:
    directory = write_adapter(tmp_path / "a")
    publication = await client.begin(draft(directory), preference=preference)
    await client.upload(publication, directory)
    manifests = await asyncio.gather(*[client.complete(publication.version_id) for _ in range(6)])
    assert len({manifest.digest for manifest in manifests}) == 1
    await client.download(await client.get_version(publication.version_id), tmp_path / "b")
