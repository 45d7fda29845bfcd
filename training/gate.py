"""The gate: what a new version must show before `live` may move to it.

The first, simple gate asks one thing: does the adapter predict its user's held-out replies better than the base?
The reasons are kept with the version, whether it passed or not.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from training.evaluation import UserEvaluation


@dataclass(frozen=True, kw_only=True)
class GatePolicy:
    """How much is asked.

    `min_gain_nats` is what the adapter must save over the base, per held-out completion token; `min_held_out_tokens` is
    how many tokens that must be measured on; `require_identified` asks that the user's own adapter also beats every
    other user's.
    """

    min_gain_nats: float = 0.0
    min_held_out_tokens: int = 1
    require_identified: bool = False


@dataclass(frozen=True, kw_only=True)
class GateDecision:
    """Whether a version passed, and every reason, as sentences for people."""

    passed: bool
    reasons: tuple[str, ...]
    policy: GatePolicy

    def to_json(self) -> dict[str, Any]:
        """Return the form that is stored with the version."""
        return {"passed": self.passed, "reasons": list(self.reasons), "policy": asdict(self.policy)}


def decide(evaluation: UserEvaluation, policy: GatePolicy) -> GateDecision:
    """Return the decision; a failed check never hides another one's reason."""
    checks = [_check_gain(evaluation, policy), _check_size(evaluation, policy)]
    if policy.require_identified:
        checks.append(_check_identified(evaluation))
    return GateDecision(
        passed=all(passed for passed, _ in checks), reasons=tuple(reason for _, reason in checks), policy=policy
    )


def _check_gain(evaluation: UserEvaluation, policy: GatePolicy) -> tuple[bool, str]:
    passed = evaluation.gain > policy.min_gain_nats
    verb = "beats" if passed else "does not beat"
    return passed, (
        f"held-out loss {evaluation.own_loss:.3f} {verb} the base's {evaluation.base_loss:.3f} "
        f"by more than {policy.min_gain_nats:g} nats per token"
    )


def _check_size(evaluation: UserEvaluation, policy: GatePolicy) -> tuple[bool, str]:
    passed = evaluation.n_tokens >= policy.min_held_out_tokens
    return passed, f"measured on {evaluation.n_tokens} held-out tokens, at least {policy.min_held_out_tokens} asked"


def _check_identified(evaluation: UserEvaluation) -> tuple[bool, str]:
    if evaluation.identified is None:
        return False, "there was no other user's adapter to compare with"
    best = min(evaluation.other_losses.values())
    verb = "beats" if evaluation.identified else "does not beat"
    return evaluation.identified, f"held-out loss {evaluation.own_loss:.3f} {verb} the best other adapter's {best:.3f}"
