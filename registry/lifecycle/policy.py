"""What a tenant may publish, what a version must show before an alias moves to it, and what is kept how long."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field, model_validator

from kit.names import Name
from registry.manifest import LIVE, Frozen, JsonObject, Lineage, Manifest

_DAY_SECONDS = 86_400
_MOST = 2**31 - 1  # what the database's integers hold: a larger number would stop every pass that reads it
_MOST_BYTES = 2**53 - 1  # what every reader of JSON keeps exactly


class Bounds(Frozen):
    """Where a measured value must lie; at least one side is given."""

    at_least: float | None = Field(default=None, allow_inf_nan=False)
    at_most: float | None = Field(default=None, allow_inf_nan=False)

    @model_validator(mode="after")
    def _one_side(self) -> Self:
        if self.at_least is None and self.at_most is None:
            raise ValueError("needs at_least, at_most or both")
        return self


class Gate(Frozen):
    """What is asked of a version before a guarded alias may move to it.

    `metrics` maps a dotted path in the newest evaluation report, as ``held_out.gain``, to bounds. `require_passed` asks
    that the report's own ``gate.passed`` is true.
    """

    require_evaluation: bool = False
    require_passed: bool = False
    metrics: dict[str, Bounds] = Field(default_factory=dict, max_length=100)


class Gates(Frozen):
    """Strict with what was trained here, validation only for what was pushed; `aliases` are the guarded names."""

    aliases: tuple[Name, ...] = (LIVE,)
    trained: Gate = Gate(require_evaluation=True, require_passed=True)
    pushed: Gate = Gate()

    def of(self, manifest: Manifest) -> Gate:
        """Return the gate that this version has to pass."""
        return self.trained if is_trained(manifest) else self.pushed


class TenantPolicy(Frozen):
    """One tenant's rules; None means no limit beside the service's own."""

    max_rank: int | None = Field(default=None, gt=0, le=_MOST, description="largest LoRA rank that may be published")
    max_adapter_bytes: int | None = Field(
        default=None, gt=0, le=_MOST_BYTES, description="largest sum of a version's files"
    )
    max_adapters: int | None = Field(default=None, gt=0, le=_MOST, description="adapters of the whole tenant")
    max_versions_per_adapter: int | None = Field(
        default=None,
        gt=0,
        le=_MOST,
        description="versions of one adapter that are neither rejected, retired nor erased",
    )
    require_signature: bool = Field(default=False, description="whether an unsigned version is refused")
    keep_versions: int = Field(
        default=3, gt=0, le=_MOST, description="newest ready versions kept beside every aliased one"
    )
    remove_after_seconds: int = Field(
        default=7 * _DAY_SECONDS,
        ge=0,
        le=3650 * _DAY_SECONDS,
        description="how long a retired version's bytes are kept",
    )
    gate: Gates = Gates()

    @classmethod
    def of(cls, stored: Mapping[str, Any] | None) -> Self:
        """Read what the table holds, None = the defaults; rules that a newer release added are passed over."""
        if stored is None:
            return cls()
        bounded = {
            name: _within(value, most=_MOST_BYTES if "bytes" in name else _MOST) for name, value in stored.items()
        }
        return cls.model_validate(bounded, extra="ignore")


def is_trained(manifest: Manifest) -> bool:
    """Say whether a version was trained by Lorry rather than pushed from outside: those say nothing of a training."""
    return manifest.lineage != Lineage()


def _within(value: Any, *, most: int) -> Any:
    """Return what an earlier release stored without an upper bound as no more than `most`."""
    return min(value, most) if isinstance(value, int) and not isinstance(value, bool) else value


def failures(gate: Gate, report: JsonObject | None) -> list[str]:
    """Return why the gate stays closed, as sentences for people; nothing = it opens.

    Args:
        gate: what is asked.
        report: the newest evaluation of the version; None when there is none.
    """
    if not report:
        asked = gate.require_evaluation or gate.require_passed or gate.metrics
        return ["there is no evaluation report"] if asked else []
    found = []
    if gate.require_passed and _look_up(report, "gate.passed") is not True:
        found.append("the evaluation report does not say that it passed its own gate")
    return found + [why for path, bounds in sorted(gate.metrics.items()) for why in _outside(report, path, bounds)]


def _outside(report: JsonObject, path: str, bounds: Bounds) -> list[str]:
    value = _look_up(report, path)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        return [f"the evaluation report has no number {path}"]
    found = []
    if bounds.at_least is not None and value < bounds.at_least:
        found.append(f"{path} is {value:g}, at least {bounds.at_least:g} asked")
    if bounds.at_most is not None and value > bounds.at_most:
        found.append(f"{path} is {value:g}, at most {bounds.at_most:g} asked")
    return found


def _look_up(report: JsonObject, path: str) -> Any:
    """Return the value at a dotted path, None when a part of it is missing."""
    value: Any = report
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value
