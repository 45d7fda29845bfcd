"""Publish: begin → upload → complete, against real PostgreSQL and S3 over real HTTP."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx
import pytest

from kit.canonical import sha256_bytes
from kit.storage import ObjectStorage
from registry.client import RegistryClient, canonical_config, draft_from_directory
from registry.errors import (
    AdapterInvalid,
    ArtifactMissing,
    BaseModelMismatch,
    BaseModelNotFound,
    DigestMismatch,
    NotServable,
    VersionConflict,
    VersionNotFound,
)
from registry.manifest import CONFIG_FILE, WEIGHTS_FILE, Draft, Lineage, Manifest, Owner
from tests.support.adapters import BASE, peft_config, with_header, write_adapter
from tests.support.registry_server import OWNER


def draft(directory: Path, *, owner: Owner = OWNER, version: int | None = None) -> Draft:
    return draft_from_directory(directory, owner=owner, base=BASE, version=version)


async def publish(client: RegistryClient, directory: Path, **changes: int | None) -> Manifest:
    return await client.publish(directory, draft=draft(directory, **changes))  # type: ignore[arg-type]


async def test_a_published_adapter_is_what_was_on_disk(
    client: RegistryClient, storage: ObjectStorage, tmp_path: Path
) -> None:
    directory = write_adapter(tmp_path / "a")
    lineage = Lineage(seed=7, hyperparameters={"learning_rate": 5e-4, "big": 1e16, "nul": "\x00"})
    wanted = draft_from_directory(directory, owner=OWNER, base=BASE, lineage=lineage, evaluation={"loss": 1.5})
    progress: list[tuple[int, int]] = []
    manifest = await client.publish(directory, draft=wanted, on_progress=lambda *step: progress.append(step))
    assert (manifest.version, manifest.owner, manifest.content_digest) == (1, OWNER, wanted.content_digest)
    assert (manifest.lineage, manifest.evaluation) == (lineage, {"loss": 1.5})
    assert progress[-1][0] == progress[-1][1] == sum(file.size_bytes for file in wanted.files)

    resolution = await client.get_version(manifest.version_id)
    assert resolution.manifest == manifest
    assert resolution.manifest.digest == manifest.digest
    await client.download(resolution, tmp_path / "b")
    assert (tmp_path / "b" / WEIGHTS_FILE).read_bytes() == (directory / WEIGHTS_FILE).read_bytes()
    assert draft(tmp_path / "b").content_digest == wanted.content_digest

    keys = [found.key for found in await storage.list("")]
    place = f"tenants/default/users/ann/versions/{manifest.version_id}"
    assert keys == [f"{place}/{CONFIG_FILE}", f"{place}/{WEIGHTS_FILE}"]


async def test_publishing_the_same_content_again_is_the_same_version(client: RegistryClient, tmp_path: Path) -> None:
    first = await publish(client, write_adapter(tmp_path / "a"))
    publication = await client.begin(draft(tmp_path / "a"))
    assert (publication.version_id, publication.state, publication.uploads) == (first.version_id, "ready", {})
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
    assert await client.list_bases() == [BASE]
    assert (await client.list_adapters("default")).adapters == ()


async def test_a_begun_version_does_not_resolve(client: RegistryClient, tmp_path: Path) -> None:
    publication = await client.begin(draft(write_adapter(tmp_path / "a")))
    assert publication.state == "pending"
    assert set(publication.uploads) == {CONFIG_FILE, WEIGHTS_FILE}
    with pytest.raises(NotServable):
        await client.get_version(publication.version_id)


async def test_beginning_again_gives_the_same_version_and_fresh_urls(client: RegistryClient, tmp_path: Path) -> None:
    directory = write_adapter(tmp_path / "a")
    first, second = await client.begin(draft(directory)), await client.begin(draft(directory))
    assert first.version_id == second.version_id
    await client.upload(second, directory)
    await client.upload(second, directory)
    assert (await client.complete(first.version_id)).version == 1


@pytest.mark.parametrize("name", [CONFIG_FILE, WEIGHTS_FILE])
async def test_a_file_that_was_never_uploaded_is_named(client: RegistryClient, tmp_path: Path, name: str) -> None:
    directory = write_adapter(tmp_path / "a")
    publication = await client.begin(draft(directory))
    others = {path: upload for path, upload in publication.uploads.items() if path != name}
    await client.upload(publication.model_copy(update={"uploads": others}), directory)
    with pytest.raises(ArtifactMissing) as caught:
        await client.complete(publication.version_id)
    assert caught.value.field == name
    with pytest.raises(NotServable):
        await client.get_version(publication.version_id)
    await client.upload(publication, directory)
    await client.complete(publication.version_id)


@pytest.mark.parametrize("data", [b"short", None], ids=["wrong size", "wrong bytes"])
async def test_wrong_bytes_are_refused_and_can_be_uploaded_again(
    client: RegistryClient, storage: ObjectStorage, tmp_path: Path, data: bytes | None
) -> None:
    directory = write_adapter(tmp_path / "a")
    publication = await client.begin(draft(directory))
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
    publication = await client.begin(draft(write_adapter(tmp_path / "a")))
    upload = publication.uploads[WEIGHTS_FILE]
    size_bytes = next(file.size_bytes for file in publication.manifest.files if file.path == WEIGHTS_FILE)
    async with httpx.AsyncClient() as http:
        answer = await http.put(upload.url, headers=upload.headers, content=bytes(size_bytes))
    assert answer.status_code == 400


async def test_a_directory_that_changed_after_it_was_digested_is_not_sent(
    client: RegistryClient, tmp_path: Path
) -> None:
    directory = write_adapter(tmp_path / "a")
    publication = await client.begin(draft(directory))
    write_adapter(directory, seed=1)
    with pytest.raises(DigestMismatch, match="changed"):
        await client.upload(publication, directory)


async def hostile(client: RegistryClient, tmp_path: Path, name: str, data: bytes) -> str:
    """Begin with a draft that matches hostile bytes, as a stranger's own client would, and put them in place."""
    good = draft(write_adapter(tmp_path / "a"))
    files = tuple(
        file.model_copy(update={"size_bytes": len(data), "sha256": sha256_bytes(data)}) if file.path == name else file
        for file in good.files
    )
    publication = await client.begin(good.model_copy(update={"files": files}))
    contents = {
        CONFIG_FILE: canonical_config((tmp_path / "a" / CONFIG_FILE).read_bytes()),
        WEIGHTS_FILE: (tmp_path / "a" / WEIGHTS_FILE).read_bytes(),
    }
    async with httpx.AsyncClient() as http:
        for path, upload in publication.uploads.items():
            content = data if path == name else contents[path]
            (await http.put(upload.url, headers=upload.headers, content=content)).raise_for_status()
    return publication.version_id


@pytest.mark.parametrize(
    ("name", "data", "field"),
    [
        (CONFIG_FILE, b"{}", f"{CONFIG_FILE}:peft_type"),
        (CONFIG_FILE, json.dumps(peft_config(use_dora=True)).encode(), f"{CONFIG_FILE}:use_dora"),
        (CONFIG_FILE, json.dumps(peft_config(r=8)).encode(), CONFIG_FILE),
        (WEIGHTS_FILE, b"PK\x03\x04 an archive", WEIGHTS_FILE),
        (WEIGHTS_FILE, with_header({"nul\x00": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"1234"), None),
    ],
)
async def test_a_hostile_upload_is_rejected_for_good_and_leaves_no_file(
    client: RegistryClient, storage: ObjectStorage, tmp_path: Path, name: str, data: bytes, field: str | None
) -> None:
    version_id = await hostile(client, tmp_path, name, data)
    with pytest.raises(AdapterInvalid) as first:
        await client.complete(version_id)
    assert field is None or first.value.field == field
    with pytest.raises(AdapterInvalid) as second:
        await client.complete(version_id)
    assert (second.value.message, second.value.field) == (first.value.message, first.value.field)
    with pytest.raises(NotServable):
        await client.get_version(version_id)
    assert await storage.list("") == []
    (version,) = await client.list_versions(OWNER, "profile")
    assert (version.state, version.reason) == ("rejected", first.value.message)
    assert (await publish(client, tmp_path / "a")).version == 2


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


async def test_a_publisher_overtaken_by_another_leaves_no_upload(
    client: RegistryClient, storage: ObjectStorage, tmp_path: Path
) -> None:
    directory = write_adapter(tmp_path / "a")
    slow = await client.begin(draft(directory))
    quick = await client.publish(directory, draft=draft(directory))
    await client.upload(slow, directory)
    assert await client.complete(slow.version_id) == quick
    assert await storage.list("incoming/") == []


async def test_racing_completions_of_one_version_all_succeed(client: RegistryClient, tmp_path: Path) -> None:
    directory = write_adapter(tmp_path / "a")
    publication = await client.begin(draft(directory))
    await client.upload(publication, directory)
    manifests = await asyncio.gather(*[client.complete(publication.version_id) for _ in range(6)])
    assert len({manifest.digest for manifest in manifests}) == 1
    await client.download(await client.get_version(publication.version_id), tmp_path / "b")
