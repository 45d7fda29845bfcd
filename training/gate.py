"""The gate: what a new version must show before `live` may move to it.

What is asked is a policy; every check gives its reason, whether it passed or not, and all reasons are kept with the
version, beside the policy. A version that fails is kept too, but no alias moves to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from training.evaluation.report import UserEvaluation
from training.policy import GatePolicy

_Check = tuple[bool, str]
_Bound = tuple[str, float | None, float | None]


@dataclass(frozen=True, kw_only=True)
class GateDecision:
    """Whether a version passed, and every reason, as sentences for people; `failed` are those that kept it back."""

    passed: bool
    reasons: tuple[str, ...]
    policy: GatePolicy
    failed: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the form that is stored with the version."""
        reasons = {"reasons": list(self.reasons), "failed": list(self.failed)}
        return {"passed": self.passed, **reasons, "policy": self.policy.model_dump(mode="json")}


def decide(evaluation: UserEvaluation, policy: GatePolicy) -> GateDecision:
    """Return the decision; a failed check never hides another one's reason."""
    checks = [_check_gain(evaluation, policy), _check_size(evaluation, policy)]
    if policy.require_identified:
        checks.append(_check_identified(evaluation))
    checks += _check_start(evaluation, policy)
    checks += _check_bounds(evaluation, policy)
    return GateDecision(
        passed=all(passed for passed, _ in checks),
        reasons=tuple(reason for _, reason in checks),
        policy=policy,
        failed=tuple(reason for passed, reason in checks if not passed),
    )


def _check_gain(evaluation: UserEvaluation, policy: GatePolicy) -> _Check:
    passed = evaluation.gain > policy.min_gain_nats
    verb = "beats" if passed else "does not beat"
    return passed, (
        f"held-out loss {evaluation.own_loss:.3f} {verb} the base's {evaluation.base_loss:.3f} "
        f"by more than {policy.min_gain_nats:g} nats per token"
    )


def _check_size(evaluation: UserEvaluation, policy: GatePolicy) -> _Check:
    passed = evaluation.n_tokens >= policy.min_held_out_tokens
    return passed, f"measured on {evaluation.n_tokens} held-out tokens, at least {policy.min_held_out_tokens} asked"


def _check_identified(evaluation: UserEvaluation) -> _Check:
    if evaluation.identified is None:
        return False, "there was no other user's adapter to compare with"
    best = min(evaluation.other_losses.values())
    verb = "beats" if evaluation.identified else "does not beat"
    return evaluation.identified, f"held-out loss {evaluation.own_loss:.3f} {verb} the best other adapter's {best:.3f}"


def _check_start(evaluation: UserEvaluation, policy: GatePolicy) -> Iterator[_Check]:
    """Yield a check where the training began with a shared adapter: what serves everybody as well is nobody's own."""
    if evaluation.start_loss is None or policy.min_start_gain_nats is None:
        return
    passed = evaluation.start_loss - evaluation.own_loss > policy.min_start_gain_nats
    verb = "beats" if passed else "does not beat"
    yield (
        passed,
        f"held-out loss {evaluation.own_loss:.3f} {verb} the {evaluation.start_loss:.3f} of the adapter that it began "
        f"with by more than {policy.min_start_gain_nats:g} nats per token",
    )


def _check_bounds(evaluation: UserEvaluation, policy: GatePolicy) -> Iterator[_Check]:
    """Yield a check for each bound that is set; what is no number is outside every bound."""
    for what, value, bound in _least(evaluation, policy):
        if value is not None and bound is not None:
            yield value >= bound, f"{what} is {value:.4g}, at least {bound:g} asked"
        elif bound is not None and policy.require_measured:
            yield False, f"{what} was not measured, at least {bound:g} asked"
    for what, value, bound in _most(evaluation, policy):
        if value is not None and bound is not None:
            yield value <= bound, f"{what} is {value:.4g}, at most {bound:g} asked"
        elif bound is not None and policy.require_measured:
            yield False, f"{what} was not measured, at most {bound:g} asked"


def _least(evaluation: UserEvaluation, policy: GatePolicy) -> list[_Bound]:
    """What has to be large: its name, what was measured, what is asked."""
    interval, yes_no = evaluation.gain_interval, evaluation.yes_no
    return [
        ("low end of the gain in nats per token", interval.low if interval else None, policy.min_gain_low_nats),
        ("gain over the best profile in the prompt", evaluation.profile_gain, policy.min_profile_gain_nats),
        ("balanced accuracy on yes/no questions", yes_no.accuracy if yes_no else None, policy.min_yes_no_accuracy),
    ]


def _most(evaluation: UserEvaluation, policy: GatePolicy) -> list[_Bound]:
    """What has to be small."""
    general, yes_no, leaks = evaluation.general, evaluation.yes_no, evaluation.leaks
    rate = abs(yes_no.yes_rate - 0.5) if yes_no else None
    verbatim = leaks.longest_verbatim_tokens if leaks else None
    hidden = "secrets and canaries" if leaks and leaks.canaries else "secrets"
    return [
        ("rise of the loss on general text, as a share", general.loss if general else None, policy.max_general_loss),
        ("fall of the share of right choices", general.choices_lost if general else None, policy.max_choices_lost),
        ("distance of the rate of yes from one half", rate, policy.max_yes_rate_excess),
        (f"number of {hidden} that come out", leaks.extracted if leaks else None, policy.max_extracted),
        ("longest trained span that comes out, in tokens", verbatim, policy.max_verbatim_tokens),
    ]
