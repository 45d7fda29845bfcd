"""What an evaluation found, for one user and for everybody compared: plain values with a JSON form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from training.evaluation.general import GeneralAbility
from training.evaluation.intervals import Estimate, estimate
from training.evaluation.leaks import Leaks
from training.evaluation.yes_no import YesNo

SCHEMA = "lorry.evaluation/1"


@dataclass(frozen=True, kw_only=True)
class UserEvaluation:
    """One user's held-out loss under every model, in nats per completion token, and what the adapter cost.

    `other_losses` maps the names of the other users of the comparison to the loss under their adapters; `n_tokens`
    counts the completion tokens of the `n_examples` held-out replies; `rivals_left_out` counts other users' adapters
    that could not be read and are not among them. `profile_losses` maps each layout of the
    profile-in-prompt to the base's loss with it; `start_loss` is that under the shared adapter which the training began
    with. Intervals resample whole replies. What was not measured is None or
    empty.
    """

    base_loss: float
    own_loss: float
    other_losses: dict[str, float]
    n_examples: int
    n_tokens: int
    profile_losses: dict[str, float] = field(default_factory=dict)
    rivals_left_out: int = 0
    gain_interval: Estimate | None = None
    profile_gain_interval: Estimate | None = None
    start_loss: float | None = None
    start_gain_interval: Estimate | None = None
    yes_no: YesNo | None = None
    general: GeneralAbility | None = None
    leaks: Leaks | None = None

    @property
    def gain(self) -> float:
        """How many nats per token the adapter saves over the base; negative when it is worse."""
        return self.base_loss - self.own_loss

    @property
    def profile_loss(self) -> float | None:
        """The base's loss with the best profile in its prompt, chosen with hindsight; None when not measured."""
        return min(self.profile_losses.values(), default=None)

    @property
    def profile_gain(self) -> float | None:
        """How many nats per token the adapter saves over the base with the best profile in its prompt."""
        return None if self.profile_loss is None else self.profile_loss - self.own_loss

    @property
    def start_gain(self) -> float | None:
        """How many nats per token the user's own replies have saved over the adapter that the training began with."""
        return None if self.start_loss is None else self.start_loss - self.own_loss

    @property
    def identified(self) -> bool | None:
        """Whether the user's own adapter predicts them better than every other's; None without others."""
        if not self.other_losses:
            return None
        return self.own_loss < min(self.other_losses.values())

    def to_json(self) -> dict[str, Any]:
        """Return the measured values and what follows from them."""
        return {
            **asdict(self),
            **{name: part.to_json() for name, part in self._parts().items()},
            "gain": self.gain,
            "profile_loss": self.profile_loss,
            "profile_gain": self.profile_gain,
            "start_gain": self.start_gain,
            "identified": self.identified,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Rebuild what `to_json` wrote."""
        given = {key: value[key] for key in cls.__dataclass_fields__ if key in value}
        for name, kind in _PARTS.items():
            if given.get(name) is not None:
                given[name] = kind.from_json(given[name])
        return cls(**given)

    def _parts(self) -> dict[str, Any]:
        return {name: part for name in _PARTS if (part := getattr(self, name)) is not None}


_PARTS: dict[str, Any] = {
    "gain_interval": Estimate,
    "profile_gain_interval": Estimate,
    "start_gain_interval": Estimate,
    "yes_no": YesNo,
    "general": GeneralAbility,
    "leaks": Leaks,
}


@dataclass(frozen=True, kw_only=True)
class EvaluationReport:
    """Everybody who was compared, by name. Laws: ``EvaluationReport.from_json(r.to_json()) == r``."""

    users: dict[str, UserEvaluation]
    seed: int = 0

    @property
    def identification_accuracy(self) -> float | None:
        """The share of users whose own adapter predicts them best; None when nobody was compared with others."""
        found = self.identification
        return found.mean if found else None

    @property
    def identification(self) -> Estimate | None:
        """The identification accuracy with its interval over resampled users; None when nobody was compared."""
        return self._over_users(lambda user: None if user.identified is None else float(user.identified))

    @property
    def gain(self) -> Estimate | None:
        """The mean gain over the base, in nats per token, with its interval over resampled users."""
        return self._over_users(lambda user: user.gain)

    @property
    def profile_gain(self) -> Estimate | None:
        """The mean gain over the base with the best profile in its prompt; None when that was not measured."""
        return self._over_users(lambda user: user.profile_gain)

    @property
    def start_gain(self) -> Estimate | None:
        """The mean gain over the adapters that the trainings began with; None where they began with nothing."""
        return self._over_users(lambda user: user.start_gain)

    @property
    def general_loss(self) -> Estimate | None:
        """The mean share by which general loss rose; None when that was not measured."""
        return self._over_users(lambda user: user.general.loss if user.general else None)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, which `from_json` reads."""
        means = {
            "identification": self.identification,
            "gain": self.gain,
            "profile_gain": self.profile_gain,
            "start_gain": self.start_gain,
            "general_loss": self.general_loss,
        }
        return {
            "schema": SCHEMA,
            "users": {name: user.to_json() for name, user in sorted(self.users.items())},
            "seed": self.seed,
            "identification_accuracy": self.identification_accuracy,
            **{name: found.to_json() if found else None for name, found in means.items()},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Rebuild what `to_json` wrote."""
        users = {name: UserEvaluation.from_json(user) for name, user in value["users"].items()}
        return cls(users=users, seed=value.get("seed", 0))

    def _over_users(self, measure: Any) -> Estimate | None:
        values = [value for _, user in sorted(self.users.items()) if (value := measure(user)) is not None]
        return estimate(values, seed=self.seed) if values else None
