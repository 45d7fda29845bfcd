from __future__ import annotations

import json

from training.evaluation import EvaluationReport, UserEvaluation
from training.gate import GatePolicy, decide
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
