"""Policies: what is refused when one is written, and what a gate asks of a report."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from registry.lifecycle.policy import Bounds, Gate, Gates, TenantPolicy, failures
from registry.manifest import Lineage, LoraShape, Manifest, ManifestFile, Owner
from tests.support.adapters import BASE

STRICT = Gate(
    require_evaluation=True,
    require_passed=True,
    metrics={"held_out.gain": Bounds(at_least=0.5), "held_out.own_loss": Bounds(at_most=2)},
)


def report(**changes: Any) -> dict[str, Any]:
    return {"gate": {"passed": True}, "held_out": {"gain": 0.6, "own_loss": 1.5} | changes}


def test_a_tenant_without_a_policy_asks_trained_versions_to_have_passed_and_pushed_ones_nothing() -> None:
    policy = TenantPolicy.of(None)
    assert policy.gate.trained.require_passed
    assert failures(policy.gate.pushed, None) == []
    assert failures(policy.gate.trained, None) == ["there is no evaluation report"]
    assert failures(policy.gate.trained, {"gate": {"passed": True}}) == []


def test_a_policy_survives_being_stored() -> None:
    policy = TenantPolicy(max_rank=8, keep_versions=2, gate={"trained": STRICT})  # type: ignore[arg-type]
    assert TenantPolicy.of(policy.model_dump(mode="json")) == policy


def test_rules_of_a_newer_release_are_passed_over_when_read_but_refused_when_written() -> None:
    stored = {"max_rank": 8, "max_moons": 2, "gate": {"trained": {"phase": "full"}}}
    assert TenantPolicy.of(stored).max_rank == 8
    with pytest.raises(ValidationError):
        TenantPolicy.model_validate(stored)


@pytest.mark.parametrize(
    "rule",
    [
        {"keep_versions": 0},
        {"max_rank": 0},
        {"remove_after_seconds": -1},
        {"remove_after_seconds": 10**12},
        {"gate": {"trained": {"metrics": {"x": {}}}}},
        {"gate": {"trained": {"metrics": {"x": {"at_least": float("nan")}}}}},
        {"gate": {"aliases": ["a/b"]}},
    ],
)
def test_a_rule_that_cannot_be_meant_is_refused(rule: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TenantPolicy.model_validate(rule)


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        ({}, []),
        ({"gain": 0.4}, ["held_out.gain is 0.4, at least 0.5 asked"]),
        ({"own_loss": 3}, ["held_out.own_loss is 3, at most 2 asked"]),
        ({"gain": 0, "own_loss": 3}, 2),
        ({"gain": None}, ["the evaluation report has no number held_out.gain"]),
        ({"gain": True}, ["the evaluation report has no number held_out.gain"]),
        ({"gain": {"deep": 1}}, ["the evaluation report has no number held_out.gain"]),
    ],
)
def test_a_gate_gives_every_reason_it_stays_closed(changes: dict[str, Any], reasons: Any) -> None:
    found = failures(STRICT, report(**changes))
    assert len(found) == reasons if isinstance(reasons, int) else found == reasons


@pytest.mark.parametrize("gate", [{}, {"passed": False}, {"passed": "true"}, None])
def test_a_report_passed_only_when_it_says_so(gate: Any) -> None:
    assert failures(Gate(require_passed=True), {"gate": gate})


def test_a_number_that_is_not_finite_never_passes() -> None:
    gate = Gate(metrics={"x": Bounds(at_least=0)})
    for value in (float("nan"), float("inf"), 10**400):
        assert failures(gate, {"x": value}) == ["the evaluation report has no number x"]


@pytest.mark.parametrize(
    "name", ["max_rank", "max_adapter_bytes", "max_adapters", "max_versions_per_adapter", "keep_versions"]
)
def test_a_number_that_no_table_can_hold_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match=name):
        TenantPolicy.model_validate({name: 10**30})


def test_a_number_that_was_stored_before_it_was_refused_reads_as_the_largest() -> None:
    assert TenantPolicy.of({"keep_versions": 10**30}).keep_versions == 2**31 - 1


EVERY_TRACE: list[dict[str, Any]] = [
    {"dataset_digest": "0" * 64},
    {"transcript_ids": ("t1",)},
    {"question_writer": "extractive"},
    {"seed": 0},
    {"hyperparameters": {"rank": 8}},
    {"packages": {"peft": "0.1"}},
    {"parent_version_id": "v" + "0" * 32},
    {"trained_at": datetime.now(UTC)},
]


def version_with(lineage: Lineage) -> Manifest:
    return Manifest(
        version_id="v" + "0" * 32,
        version=1,
        created_at=datetime.now(UTC),
        owner=Owner(tenant="acme", user="ann"),
        base=BASE,
        lora=LoraShape(rank=8, alpha=16, target_modules=("q_proj",)),
        files=(ManifestFile(path="adapter_model.safetensors", size_bytes=7, sha256="0" * 64),),
        lineage=lineage,
    )


@pytest.mark.parametrize("trace", EVERY_TRACE, ids=lambda trace: next(iter(trace)))
def test_whatever_says_that_a_version_was_trained_brings_it_before_the_strict_gate(trace: dict[str, Any]) -> None:
    assert Gates().of(version_with(Lineage(**trace))) == Gates().trained


def test_every_field_of_a_lineage_counts_as_such_a_trace() -> None:
    assert {name for trace in EVERY_TRACE for name in trace} == Lineage.model_fields.keys()


def test_a_version_that_says_nothing_of_a_training_passes_by_the_gate_of_what_was_pushed() -> None:
    assert Gates().of(version_with(Lineage())) == Gates().pushed
