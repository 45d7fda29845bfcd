"""From a trained and evaluated adapter to a version in the registry, and to `live` when its gate allows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from registry.client import RegistryClient, draft_from_directory
from registry.errors import AliasConflict
from registry.manifest import DEFAULT_ADAPTER, LIVE, Draft, JsonObject, Lineage, Manifest, Owner
from training.errors import GateNotPassed
from training.evaluation import UserEvaluation
from training.gate import GateDecision, decide
from training.policy import GatePolicy
from training.trainer import TrainedAdapter

_ALIAS_ATTEMPTS = 5


@dataclass(frozen=True, kw_only=True)
class Published:
    """What became of a training: its version, the newest report, what the gate said, whether `live` names it now."""

    manifest: Manifest
    evaluation: JsonObject
    decision: GateDecision
    live: bool

    @property
    def why_not(self) -> str:
        """What keeps the version from passing, or from being live, and what can be done; empty for one that is both.

        One that became live by other bounds stays so: they were asked of it then.
        """
        if self.decision.passed:
            return "" if self.live else "another version became live at the same time"
        return f"{'; '.join(self.decision.failed)} (docs/evaluation.md says what each bound asks)"

    def require_live(self) -> Manifest:
        """Return the manifest of a version that is live.

        Raises:
            GateNotPassed: with the gate's reasons.
        """
        if not self.live:
            raise GateNotPassed(
                f"version {self.manifest.version} is kept but not live: {self.why_not}",
                version_id=self.manifest.version_id,
            )
        return self.manifest


def describe(trained: TrainedAdapter, *, parent_version_id: str | None = None) -> Lineage:
    """Return where an adapter came from."""
    record, training = trained.record, trained.config.training
    return Lineage(
        dataset_digest=record.dataset_digest,
        transcript_ids=record.transcript_ids,
        question_writer=record.question_writer,
        seed=training.seed,
        hyperparameters={
            **training.model_dump(mode="json", exclude={"base", "seed"}),
            "steps": record.steps,
            "examples": record.examples,
            "tokens": record.tokens,
            "quantisation": "nf4",
            "threads": record.threads,
            "device": record.device,
        },
        packages=record.packages,
        parent_version_id=parent_version_id,
        trained_at=datetime.fromisoformat(record.finished_at),
    )


async def publish(
    trained: TrainedAdapter,
    evaluation: UserEvaluation,
    *,
    owner: Owner,
    registry: RegistryClient,
    adapter: str = DEFAULT_ADAPTER,
    policy: GatePolicy | None = None,
    base_directory: Path | None = None,
    before: Callable[[str], Awaitable[None]] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Published:
    """Publish a version with its lineage and evaluation; move `live` to it only when it passes the gate.

    A version that fails is kept, with the reasons in its manifest, and no alias moves. Publishing the same training
    again is a success and returns the version that exists; judged by other bounds, it gets the new report beside its
    manifest, and the registry's gate looks at that. `policy` says how much is asked. `base_directory` holds the base
    model, which a registry that does not know it yet wants to read. `before` is given the digest of the content before
    the registry has any of it. `on_progress` is told (bytes sent, of).

    Raises:
        BaseModelMismatch: the registry knows another base model by this id.
        AliasConflict: others kept moving `live` at the same time.
        RegistryError: see `RegistryClient.publish`.
    """
    decision = decide(evaluation, policy or GatePolicy())
    config = await asyncio.to_thread((base_directory / "config.json").read_bytes) if base_directory else None
    await registry.register_base(trained.base, config=config)
    parent = await registry.get_alias(owner, adapter, LIVE)
    draft = await asyncio.to_thread(_draft, trained, evaluation, decision, owner, adapter, parent)
    if before is not None:
        await before(draft.content_digest)
    manifest = await registry.publish(trained.adapter_directory, draft=draft, on_progress=on_progress)
    attached = await registry.lifecycle.list_evaluations(manifest.version_id)
    newest = attached[0].report if attached else manifest.evaluation
    if newest.get("gate") != draft.evaluation["gate"]:  # the version existed, and was judged by other bounds
        await registry.lifecycle.attach_evaluation(manifest.version_id, draft.evaluation)
    if decision.passed:
        await _move_live(registry, owner, adapter, manifest.version_id)
    live = await registry.get_alias(owner, adapter, LIVE) == manifest.version_id
    return Published(manifest=manifest, evaluation=draft.evaluation, decision=decision, live=live)


def _draft(
    trained: TrainedAdapter,
    evaluation: UserEvaluation,
    decision: GateDecision,
    owner: Owner,
    adapter: str,
    parent_version_id: str | None,
) -> Draft:
    report: dict[str, Any] = {**evaluation_for_manifest(evaluation), "gate": decision.to_json()}
    return draft_from_directory(
        trained.adapter_directory,
        owner=owner,
        adapter=adapter,
        base=trained.base,
        lineage=describe(trained, parent_version_id=parent_version_id),
        evaluation=report,
    )


def evaluation_for_manifest(evaluation: UserEvaluation) -> dict[str, Any]:
    """Return the evaluation as a version carries it: ``held_out``, and what else was measured.

    That is ``general``, ``yes_no`` and ``leaks``. Other users are counted, not named: a manifest belongs to one user.
    Gates of the registry look here by dotted paths, as ``held_out.gain`` or ``general.loss``.
    """
    held_out = evaluation.to_json()
    others = sorted(held_out.pop("other_losses").values())
    parts = {name: held_out.pop(name) for name in ("general", "yes_no", "leaks")}
    measured = {name: part for name, part in parts.items() if part is not None}
    return {"held_out": {**held_out, "other_losses": others}, **measured}


async def _move_live(registry: RegistryClient, owner: Owner, adapter: str, version_id: str) -> None:
    for attempt in range(_ALIAS_ATTEMPTS):
        current = await registry.get_alias(owner, adapter, LIVE)
        if current == version_id:
            return
        try:
            await registry.move_alias(
                owner, adapter, LIVE, version_id=version_id, expected_version_id=current, why="passed its gate"
            )
            return
        except AliasConflict:
            if attempt + 1 == _ALIAS_ATTEMPTS:
                raise
