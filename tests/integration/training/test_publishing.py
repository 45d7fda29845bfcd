from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from registry.client import RegistryClient
from registry.errors import GateClosed
from registry.manifest import LIVE, Owner
from training.errors import GateNotPassed
from training.evaluation import UserEvaluation
from training.policy import GatePolicy
from training.publishing import publish
from training.trainer import TrainedAdapter

BETTER = UserEvaluation(base_loss=3.0, own_loss=2.0, other_losses={"bob": 2.5}, n_examples=6, n_tokens=80)
WORSE = UserEvaluation(base_loss=3.0, own_loss=3.1, other_losses={}, n_examples=6, n_tokens=80)


@pytest.fixture
def owner() -> Owner:
    return Owner(tenant="default", user=f"ada-{uuid.uuid4().hex[:8]}")


async def test_a_version_that_passes_its_gate_becomes_live(
    registry_client: RegistryClient, trained: dict[str, TrainedAdapter], tiny_base: Path, owner: Owner
) -> None:
    published = await publish(trained["ada"], BETTER, owner=owner, registry=registry_client, base_directory=tiny_base)
    assert published.live
    manifest = published.require_live()
    assert await registry_client.get_alias(owner, "profile", LIVE) == manifest.version_id
    assert manifest.evaluation["gate"]["passed"] is True
    assert manifest.evaluation["held_out"]["own_loss"] == 2.0
    assert manifest.lineage.dataset_digest == trained["ada"].record.dataset_digest
    assert manifest.lineage.transcript_ids == trained["ada"].record.transcript_ids
    assert manifest.lineage.question_writer == "extractive/1"
    assert manifest.lineage.packages["peft"]


async def test_a_version_that_fails_is_kept_with_its_reasons_and_live_stays(
    registry_client: RegistryClient, trained: dict[str, TrainedAdapter], tiny_base: Path, owner: Owner
) -> None:
    first = await publish(trained["ada"], BETTER, owner=owner, registry=registry_client, base_directory=tiny_base)
    second = await publish(trained["bob"], WORSE, owner=owner, registry=registry_client, base_directory=tiny_base)
    assert not second.live
    assert await registry_client.get_alias(owner, "profile", LIVE) == first.manifest.version_id
    kept = (await registry_client.get_version(second.manifest.version_id)).manifest
    assert "does not beat" in kept.evaluation["gate"]["reasons"][0]
    assert kept.lineage.parent_version_id == first.manifest.version_id
    with pytest.raises(GateNotPassed, match="does not beat"):
        second.require_live()
    with pytest.raises(GateClosed, match="passed its own gate"):  # nor by hand
        await registry_client.move_alias(
            owner,
            "profile",
            LIVE,
            version_id=second.manifest.version_id,
            expected_version_id=first.manifest.version_id,
        )


async def test_a_first_version_that_fails_leaves_no_live(
    registry_client: RegistryClient, trained: dict[str, TrainedAdapter], tiny_base: Path, owner: Owner
) -> None:
    strict = GatePolicy(min_gain_nats=5.0)
    published = await publish(
        trained["ada"], BETTER, owner=owner, registry=registry_client, policy=strict, base_directory=tiny_base
    )
    assert not published.live
    assert await registry_client.get_alias(owner, "profile", LIVE) is None


async def test_publishing_the_same_training_again_is_the_same_version(
    registry_client: RegistryClient, trained: dict[str, TrainedAdapter], tiny_base: Path, owner: Owner
) -> None:
    first = await publish(trained["ada"], BETTER, owner=owner, registry=registry_client, base_directory=tiny_base)
    again = await publish(trained["ada"], BETTER, owner=owner, registry=registry_client, base_directory=tiny_base)
    assert again.manifest.version_id == first.manifest.version_id
    assert again.live
    assert len(await registry_client.list_versions(owner, "profile")) == 1


async def test_a_version_that_is_judged_anew_by_other_bounds_carries_the_new_report(
    registry_client: RegistryClient, trained: dict[str, TrainedAdapter], tiny_base: Path, owner: Owner
) -> None:
    strict = GatePolicy(min_gain_nats=5.0)
    kept = await publish(
        trained["ada"], BETTER, owner=owner, registry=registry_client, policy=strict, base_directory=tiny_base
    )
    assert not kept.live
    again = await publish(trained["ada"], BETTER, owner=owner, registry=registry_client, base_directory=tiny_base)
    assert again.live
    assert again.manifest.version_id == kept.manifest.version_id
    (report,) = await registry_client.lifecycle.list_evaluations(kept.manifest.version_id)
    assert report.report["gate"] == again.decision.to_json()
