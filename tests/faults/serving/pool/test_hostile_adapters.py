"""Adapters that are not what they should be: each fails alone, at once, with the reason; nobody else notices."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from kit.canonical import sha256_file
from kit.database import Database
from registry.client.transfer import seal_directory
from registry.manifest import WEIGHTS_FILE, Manifest
from registry.publishing.layout import sealed_key
from tests.support.pool_rig import Rig, rot
from tests.support.steering import rows

RIG = {"engine": {"LORRY_MAX_LORA_RANK": "16"}, "max_rank": 32}
RandomAdapter = Callable[..., Path]


@pytest.fixture(scope="module", autouse=True)
async def _others(rig: Rig, random_adapter: RandomAdapter) -> None:
    """Two users whom nothing here may disturb."""
    versions = [(await rig.publish(random_adapter(seed, rank=8), user=f"other-{seed}")).version_id for seed in (1, 2)]
    await rig.meet(*versions)


async def refused(rig: Rig, version_id: str, *, status: int, reason: str, says: str) -> None:
    """Ask three times: each is told why, the engine tries once, and the others go on."""
    async with rig.others(), rig.counted() as happened:
        answers = [await rig.ask(version_id)]  # from here on its refusal is remembered, for a few seconds
        answers += await asyncio.gather(rig.ask(version_id), rig.ask(version_id))

    assert {answer.status_code for answer in answers} == {status}, answers[0].text
    assert all(says in answer.json()["error"]["message"] for answer in answers), answers[0].text
    assert happened.failures == {reason: 1}
    assert happened.loads == {"failed": 1}
    assert happened.refusals == {reason: 3}
    assert version_id not in await rig.residents()


@pytest.mark.parametrize("damage", ["truncated", "bit flip", "empty", "gone"])
async def test_an_object_that_was_damaged_in_the_store_is_refused_until_it_is_mended(
    rig: Rig, random_adapter: RandomAdapter, damage: str
) -> None:
    manifest = await rig.publish(random_adapter(10, rank=8), user=f"damaged-{damage.replace(' ', '-')}")
    key = sealed_key(manifest)
    sound = await rig.storage.get(key)
    middle = len(sound) // 2
    flipped = sound[:middle] + bytes([sound[middle] ^ 1]) + sound[middle + 1 :]
    if damage == "gone":
        await rig.storage.delete(key)
    else:
        await rig.storage.put(key, {"truncated": sound[:-64], "bit flip": flipped, "empty": b""}[damage])
    await refused(rig, manifest.version_id, status=502, reason="damaged", says="the object store")
    assert rig.on_disk(manifest.version_id) == []

    await rig.storage.put(key, sound)
    await rig.forget_refusals()
    async with rig.others(answers=1), rig.counted() as happened:
        assert (await rig.ask(manifest.version_id)).status_code == 200
    assert (happened.loads, happened.failures) == ({"loaded": 1}, {})


async def test_an_adapter_of_another_base_model_is_refused(rig: Rig, random_adapter: RandomAdapter) -> None:
    other = rig.base.model_copy(update={"id": "another", "weights_sha256": "0" * 64})
    await rig.registry_client.register_base(other, config=(rig.base_directory / "config.json").read_bytes())
    manifest = await rig.publish(random_adapter(11, rank=8), user="foreigner", base=other)

    await refused(rig, manifest.version_id, status=409, reason="base_mismatch", says="weights_sha256 differ")
    assert rig.downloads(manifest.version_id) == 0


async def test_an_adapter_of_too_high_a_rank_is_refused(rig: Rig, random_adapter: RandomAdapter) -> None:
    manifest = await rig.publish(random_adapter(12, rank=32), user="giant")

    await refused(rig, manifest.version_id, status=409, reason="unfit", says="rank is 32")
    assert rig.downloads(manifest.version_id) == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
async def test_weights_that_would_poison_others_are_refused_though_the_registry_vouches_for_them(
    rig: Rig, random_adapter: RandomAdapter, tmp_path: Path, value: float
) -> None:
    """The registry refuses such weights itself: here it is one that did not, or whose database was tampered with."""
    sound = random_adapter(13, rank=8)
    manifest = await rig.publish(sound, user=f"poisoner-{value:.0f}".replace("+", ""))
    await forge(rig, manifest, poisoned(sound, tmp_path / "poison", value))

    await refused(rig, manifest.version_id, status=409, reason="unfit", says="not finite")


def poisoned(source: Path, target: Path, value: float) -> Path:
    """A copy of an adapter with one bad number in its last tensor."""
    shutil.copytree(source, target)
    weights: dict[str, Any] = load_file(target / WEIGHTS_FILE)
    last = weights[max(weights)]
    last[-1, -1] = np.float32(value)
    save_file(weights, target / WEIGHTS_FILE)
    return target


async def forge(rig: Rig, manifest: Manifest, directory: Path) -> None:
    """Let the registry vouch for other weights than those that it looked at: properly sealed, digested and stored."""
    grant = await rig.registry_client.grant(manifest.version_id)
    digest = sha256_file(directory / WEIGHTS_FILE)
    files = tuple(
        file.model_copy(update={"sha256": digest}) if file.path == WEIGHTS_FILE else file for file in manifest.files
    )
    forged = manifest.model_copy(update={"files": files})
    await rig.storage.put(
        sealed_key(manifest), b"".join(map(bytes, seal_directory(directory, forged, key=grant.content_key)))
    )
    database = Database(rig.plan.database)
    try:
        await rows(database, "alter table adapter_version disable trigger user")
        await rows(
            database,
            "update adapter_version set manifest = cast(:manifest as json) where version_id = :version_id",
            manifest=json.dumps(forged.model_dump(mode="json")),
            version_id=manifest.version_id,
        )
        await rows(database, "alter table adapter_version enable trigger user")
    finally:
        await database.close()


async def test_a_name_that_nobody_knows_costs_one_question(rig: Rig) -> None:
    await refused(rig, "v" + "9" * 32, status=404, reason="unknown_version", says="no version")


async def test_every_file_that_is_gone_is_only_fetched_again_and_the_engine_lives(
    rig: Rig, random_adapter: RandomAdapter
) -> None:
    """Stock vLLM dies here, for everyone: `test_worker_seam` shows it."""
    versions = [
        (await rig.publish(random_adapter(seed, rank=2), user=f"gone-{seed}")).version_id for seed in range(20, 29)
    ]
    texts = [await rig.text(version_id) for version_id in versions]
    assert len(await rig.residents()) == 8  # LORRY_MAX_CPU_LORAS: the first ones were evicted from memory
    for version_id in versions:
        shutil.rmtree(rig.sealed(version_id).parent)
    async with rig.others(), rig.counted() as happened:
        again = [await rig.text(version_id) for version_id in versions]

    assert again == texts
    assert happened.failures == {}
    assert happened.loads["loaded"] >= 2
    assert {rig.downloads(version_id) for version_id in versions[:2]} == {2}


@pytest.mark.parametrize(("damage", "counted"), [("truncated", "damaged"), ("bit flip", "damaged"), ("gone", "lost")])
async def test_what_rots_on_the_disk_is_noticed_when_it_is_next_used_and_fetched_once(
    rig: Rig, random_adapter: RandomAdapter, damage: str, counted: str
) -> None:
    version_id = (await rig.publish(random_adapter(14, rank=8), user=f"rotten-{damage.replace(' ', '-')}")).version_id
    text = await rig.text(version_id)
    await rig.evict(version_id)
    rot(rig.sealed(version_id), damage)
    async with rig.others(), rig.counted() as happened:
        texts = await asyncio.gather(*(rig.text(version_id) for _ in range(4)))

    assert set(texts) == {text}
    assert (happened.loads, happened.failures, happened.refusals) == ({"loaded": 1}, {}, {})
    assert happened.evictions("disk") == {counted: 1}
    assert rig.downloads(version_id) == 2


async def test_after_all_this_the_engine_answers_as_before(rig: Rig) -> None:
    async with rig.others(answers=2):
        assert (await rig.http.get("/lorry/ready")).status_code == 200
