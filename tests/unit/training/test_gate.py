from __future__ import annotations

import json
from dataclasses import replace

import pytest

from training.evaluation import EvaluationReport, UserEvaluation
from training.evaluation.general import GeneralAbility, GeneralScore
from training.evaluation.intervals import Estimate
from training.evaluation.leaks import Leaks
from training.evaluation.yes_no import YesNo
from training.gate import decide
from training.policy import GatePolicy
from training.publishing import evaluation_for_manifest


def evaluation(own: float, *, base: float = 3.0, others: dict[str, float] | None = None) -> UserEvaluation:
    return UserEvaluation(base_loss=base, own_loss=own, other_losses=others or {}, n_examples=9, n_tokens=120)


def test_an_adapter_that_beats_the_base_passes() -> None:
    decision = decide(evaluation(2.5), GatePolicy())
    assert decision.passed
    assert "2.500 beats the base's 3.000" in decision.reasons[0]


def test_an_adapter_that_is_no_better_than_the_base_fails_with_the_reason() -> None:
    decision = decide(evaluation(3.0), GatePolicy())
    assert not decision.passed
    assert "does not beat" in decision.reasons[0]


def test_a_loss_that_is_not_a_number_fails() -> None:
    assert not decide(evaluation(float("nan")), GatePolicy()).passed


def test_the_margin_and_the_number_of_tokens_are_asked_for() -> None:
    assert not decide(evaluation(2.95), GatePolicy(min_gain_nats=0.1)).passed
    assert not decide(evaluation(2.0), GatePolicy(min_held_out_tokens=121)).passed


def test_identification_is_asked_for_only_when_the_policy_says_so() -> None:
    worse = evaluation(2.5, others={"b": 2.4})
    assert decide(worse, GatePolicy()).passed
    assert not decide(worse, GatePolicy(require_identified=True)).passed
    assert not decide(evaluation(2.5), GatePolicy(require_identified=True)).passed
    assert decide(evaluation(2.3, others={"b": 2.4}), GatePolicy(require_identified=True)).passed


@pytest.mark.parametrize(
    ("start", "asked", "passes"),
    [
        (2.6, 0.0, True),
        (2.5, 0.0, False),
        (2.4, 0.0, False),
        (2.4, None, True),
        (2.6, 0.2, False),
        (float("nan"), 0.0, False),
    ],
)
def test_a_version_that_serves_its_user_no_better_than_what_it_began_with_fails(
    start: float, asked: float | None, passes: bool
) -> None:
    decision = decide(replace(evaluation(2.5), start_loss=start), GatePolicy(min_start_gain_nats=asked))
    assert decision.passed is passes
    assert any("of the adapter that it began with" in reason for reason in decision.failed) is not passes


def test_where_nothing_was_begun_with_nothing_is_asked_about_it() -> None:
    decision = decide(evaluation(2.5), GatePolicy(min_start_gain_nats=1.0))
    assert decision.passed
    assert not any("began with" in reason for reason in decision.reasons)


def test_every_failed_check_gives_its_reason() -> None:
    policy = GatePolicy(min_held_out_tokens=1000, require_identified=True)
    assert len(decide(evaluation(4.0), policy).reasons) == 3


def test_a_report_survives_its_json_form_and_counts_who_was_identified() -> None:
    report = EvaluationReport(
        users={"a": evaluation(2.0, others={"b": 2.5}), "b": evaluation(2.9, others={"a": 2.5}), "c": evaluation(1.0)}
    )
    assert EvaluationReport.from_json(json.loads(json.dumps(report.to_json()))) == report
    assert report.identification_accuracy == 0.5
    assert EvaluationReport(users={"c": evaluation(1.0)}).identification_accuracy is None


def test_a_manifest_never_names_other_users() -> None:
    stored = json.dumps(evaluation_for_manifest(evaluation(2.0, others={"secret-user": 2.5})))
    assert "secret-user" not in stored
    assert "2.5" in stored


def costly(**changes: float) -> UserEvaluation:
    """An evaluation in which everything was measured, and is fine but for what `changes` says."""
    given = {
        "general": 2.0,
        "choices": 0.75,
        "accuracy": 0.9,
        "yes_rate": 0.5,
        "extracted": 0,
        "verbatim": 3,
        **changes,
    }
    before = GeneralScore(answers_loss=2.0, passages_loss=2.0, loss=2.0, choices_right=0.75)
    return replace(
        evaluation(2.5),
        profile_losses={"facts": given.get("profile", 2.75)},
        gain_interval=Estimate(mean=0.5, low=given.get("low", 0.25), high=0.75, n=9),
        general=GeneralAbility(
            before=before,
            after=replace(before, loss=given["general"], choices_right=given["choices"]),
            set_digest="abc",
        ),
        yes_no=YesNo(
            questions=8,
            accuracy=given["accuracy"],
            yes_rate=given["yes_rate"],
            base_accuracy=0.5,
            base_yes_rate=1.0,
        ),
        leaks=Leaks(
            secrets=4,
            secrets_extracted=int(given["extracted"]),
            canaries=0,
            canaries_extracted=0,
            replies=9,
            verbatim_replies=0.0,
            longest_verbatim_tokens=int(given["verbatim"]),
        ),
    )


STRICT = GatePolicy(
    min_gain_low_nats=0.1,
    min_profile_gain_nats=0.1,
    max_general_loss=0.02,
    max_choices_lost=0.1,
    min_yes_no_accuracy=0.6,
    max_yes_rate_excess=0.3,
    max_extracted=0,
    max_verbatim_tokens=20,
    require_measured=True,
)


def test_a_version_that_is_within_every_bound_passes() -> None:
    assert decide(costly(), STRICT).passed


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"low": 0.05}, "low end of the gain in nats per token is 0.05, at least 0.1 asked"),
        ({"profile": 2.55}, "gain over the best profile in the prompt is 0.05, at least 0.1 asked"),
        ({"general": 2.1}, "rise of the loss on general text, as a share is 0.05, at most 0.02 asked"),
        ({"general": float("nan")}, "rise of the loss on general text, as a share is nan, at most 0.02 asked"),
        ({"choices": 0.5}, "fall of the share of right choices is 0.25, at most 0.1 asked"),
        ({"accuracy": 0.5}, "balanced accuracy on yes/no questions is 0.5, at least 0.6 asked"),
        ({"yes_rate": 1.0}, "distance of the rate of yes from one half is 0.5, at most 0.3 asked"),
        ({"extracted": 1}, "number of secrets that come out is 1, at most 0 asked"),
        ({"verbatim": 21}, "longest trained span that comes out, in tokens is 21, at most 20 asked"),
    ],
)
def test_each_bound_alone_closes_the_gate_with_its_reason(changes: dict[str, float], reason: str) -> None:
    decision = decide(costly(**changes), STRICT)
    assert not decision.passed
    assert reason in decision.reasons


def test_what_was_not_measured_closes_the_gate_only_when_the_policy_says_so() -> None:
    bare = evaluation(2.5)
    asked = STRICT.model_copy(update={"require_measured": False})
    assert decide(bare, asked).passed
    decision = decide(bare, STRICT)
    assert not decision.passed
    assert sum("was not measured" in reason for reason in decision.reasons) == 8


def test_a_secret_that_comes_out_fails_by_default() -> None:
    decision = decide(costly(extracted=1), GatePolicy())
    assert not decision.passed


def test_a_decision_is_stored_with_the_policy_that_was_asked() -> None:
    stored = json.loads(json.dumps(decide(costly(), STRICT).to_json()))
    assert stored["policy"]["max_general_loss"] == 0.02
    assert stored["passed"] is True
