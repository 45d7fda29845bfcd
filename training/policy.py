"""What a new version must show: the gate's bounds, as a training's settings (`gate.*`) and as an operator's file.

What the operator's file says holds for every training that does not say otherwise, and no training may ask less.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, ValidationError

from kit.settings import Settings
from training.errors import ConfigInvalid

NONE = "none"


def _or_none(value: Any) -> Any:
    """Read ``none``, as a command line and JSON without null write it, as no bound at all."""
    return None if isinstance(value, str) and value.strip().lower() in {NONE, ""} else value


_Nats = Annotated[FiniteFloat | None, BeforeValidator(_or_none)]
_Share = Annotated[Annotated[FiniteFloat, Field(ge=0)] | None, BeforeValidator(_or_none)]
_Count = Annotated[Annotated[int, Field(ge=0)] | None, BeforeValidator(_or_none)]


class GatePolicy(BaseModel):
    """How much is asked of a version before `live` may move to it; a bound of None asks nothing.

    A bound on what nobody measured is passed over, unless `require_measured`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_gain_nats: FiniteFloat = Field(0.0, description="gain over the base in nats per held-out token, more than")
    min_held_out_tokens: int = Field(1, ge=1, description="held-out tokens that it must be measured on")
    require_identified: bool = Field(False, description="the own adapter must beat every other user's")
    min_gain_low_nats: _Nats = Field(None, description="low end of the gain's interval; none = not asked")
    min_profile_gain_nats: _Nats = Field(
        None, description="gain over the base with the best profile in its prompt; none = not asked"
    )
    min_start_gain_nats: _Nats = Field(
        0.0, description="gain over the shared adapter that the training began with, more than; none = not asked"
    )
    max_general_loss: _Share = Field(
        0.05, description="share by which the loss on general text may rise; none = not asked"
    )
    max_choices_lost: _Share = Field(
        None, description="share of right choices on general questions that may be lost; none = not asked"
    )
    min_yes_no_accuracy: _Share = Field(None, description="balanced accuracy on yes/no questions; none = not asked")
    max_yes_rate_excess: _Share = Field(None, description="distance of the rate of yes from one half; none = not asked")
    max_extracted: _Count = Field(0, description="secrets and canaries that may come out; none = not asked")
    max_verbatim_tokens: _Count = Field(
        50, description="tokens of a trained reply that may come out in a row; none = not asked"
    )
    require_measured: bool = Field(False, description="what a bound is about must have been measured")

    def asks_less(self, other: GatePolicy, name: str) -> bool:
        """Say whether the bound of that name lets a version pass that the other's keeps."""
        return _strictness(name, getattr(self, name)) < _strictness(name, getattr(other, name))


class GateSettings(Settings):
    """Where an operator's bounds are."""

    training_gate_file: Path | None = Field(
        None,
        description="YAML file of bounds that every version must keep, such as `max_general_loss: 0.02`;"
        " a training may ask more, never less",
    )

    def gate_bounds(self) -> dict[str, Any]:
        """Return the bounds of the operator's file, by name; empty without one.

        Raises:
            ConfigInvalid: the file cannot be used; it names file, bound and reason.
        """
        return {} if self.training_gate_file is None else _read_bounds(self.training_gate_file)


def require_no_less(policy: GatePolicy, *, floor: Mapping[str, Any]) -> None:
    """Refuse a policy that asks less than an operator does.

    Raises:
        ConfigInvalid: naming the bound, and what the operator asks.
    """
    least = GatePolicy.model_validate(floor)
    for name in floor:
        if policy.asks_less(least, name):
            asked, given = getattr(least, name), getattr(policy, name)
            raise ConfigInvalid(
                f"gate.{name}: {_shown(given)} asks less than the operator's {_shown(asked)}, which"
                " LORRY_TRAINING_GATE_FILE names",
                field=f"gate.{name}",
            )


def _strictness(name: str, value: Any) -> float:
    """Return a number that is larger the more a bound asks."""
    if value is None:
        return -math.inf
    return -float(value) if name.startswith("max_") else float(value)


def _shown(value: Any) -> str:
    return NONE if value is None else str(value).lower() if isinstance(value, bool) else f"{value:g}"


def _read_bounds(path: Path) -> dict[str, Any]:
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as exc:
        raise ConfigInvalid(f"{path} cannot be read: {exc.strerror}", field=str(path)) from exc
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise ConfigInvalid(f"{path} is not YAML: {exc}", field=str(path)) from exc
    if not isinstance(value, dict):
        raise ConfigInvalid(f"{path} must hold `bound: value` lines", field=str(path))
    for key in value:
        if key not in GatePolicy.model_fields:
            near = difflib.get_close_matches(str(key), GatePolicy.model_fields, n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(GatePolicy.model_fields)}"
            raise ConfigInvalid(f"{path}: there is no bound {key}{hint}", field=str(key))
    try:
        policy = GatePolicy.model_validate(value)
    except ValidationError as exc:
        first = exc.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ConfigInvalid(f"{path}: {key}: {first['msg']} (got {first['input']!r})", field=key) from exc
    return {name: getattr(policy, name) for name in value}
