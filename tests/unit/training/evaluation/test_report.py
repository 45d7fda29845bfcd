from __future__ import annotations

import json
from typing import Any

from training.evaluation import EvaluationReport, UserEvaluation
from training.evaluation.general import GeneralAbility, GeneralScore
from training.evaluation.intervals import Estimate
from training.evaluation.leaks import Leaks
from training.evaluation.yes_no import YesNo
from training.publishing import evaluation_for_manifest

BEFORE = GeneralScore(answers_loss=2.0, passages_loss=2.0, loss=2.0, choices_right=0.75)
AFTER = GeneralScore(answers_loss=2.1, passages_loss=2.1, loss=2.1, choices_right=0.5)
ESTIMATE = Estimate(mean=0.5, low=0.2, high=0.8, n=9)
WHOLE: dict[str, Any] = {
    "base_loss": 3.0,
    "own_loss": 2.5,
    "other_losses": {"secret-user": 2.75},
    "n_examples": 9,
    "n_tokens": 120,
    "profile_losses": {"facts": 2.875, "conversation": 2.625},
    "gain_interval": ESTIMATE,
    "profile_gain_interval": ESTIMATE,
    "yes_no": YesNo(questions=8, accuracy=0.75, yes_rate=0.5, base_accuracy=0.5, base_yes_rate=1.0),
    "general": GeneralAbility(before=BEFORE, after=AFTER, set_digest="abc"),
    "leaks": Leaks(
        secrets=2,
        secrets_extracted=1,
        canaries=1,
        canaries_extracted=1,
        replies=4,
        verbatim_replies=0.25,
        longest_verbatim_tokens=12,
    ),
}


def test_everything_that_was_measured_survives_the_json_form() -> None:
    report = EvaluationReport(users={"a": UserEvaluation(**WHOLE)}, seed=5)
    assert EvaluationReport.from_json(json.loads(json.dumps(report.to_json()))) == report


def test_a_report_that_was_stored_before_there_was_more_to_measure_is_still_read() -> None:
    old = {"base_loss": 3.0, "own_loss": 2.0, "other_losses": {}, "n_examples": 1, "n_tokens": 9, "gain": 1.0}
    read = UserEvaluation.from_json(old)
    assert read.gain == 1.0
    assert read.general is None


def test_the_rival_is_the_best_of_the_profiles() -> None:
    user = UserEvaluation(**WHOLE)
    assert user.profile_loss == 2.625
    assert user.profile_gain == 0.125
    assert UserEvaluation(**{**WHOLE, "profile_losses": {}}).profile_gain is None


def test_the_general_loss_is_a_share_of_the_loss_before() -> None:
    ability = GeneralAbility(before=BEFORE, after=AFTER, set_digest="abc")
    assert round(ability.loss, 9) == 0.05
    assert ability.choices_lost == 0.25


def test_means_over_people_leave_out_who_was_not_measured() -> None:
    alone = {**WHOLE, "other_losses": {}, "profile_losses": {}, "general": None, "own_loss": 1.5}
    report = EvaluationReport(users={"a": UserEvaluation(**WHOLE), "b": UserEvaluation(**alone)})
    assert report.identification is not None
    assert report.identification.n == 1
    assert report.gain is not None
    assert report.gain.mean == 1.0
    assert report.gain.n == 2
    assert report.profile_gain is not None
    assert report.profile_gain.n == 1
    empty = EvaluationReport(users={"b": UserEvaluation(**alone)})
    assert empty.identification is None
    assert empty.general_loss is None


def test_a_version_carries_what_was_measured_under_paths_that_gates_look_at_and_names_nobody() -> None:
    stored = evaluation_for_manifest(UserEvaluation(**WHOLE))
    assert stored["held_out"]["gain"] == 0.5
    assert stored["held_out"]["profile_gain"] == 0.125
    assert stored["held_out"]["other_losses"] == [2.75]
    assert round(stored["general"]["loss"], 9) == 0.05
    assert stored["yes_no"]["yes_rate"] == 0.5
    assert stored["leaks"]["secrets_extracted"] == 1
    assert "secret-user" not in json.dumps(stored)


def test_a_version_says_nothing_about_what_was_not_measured() -> None:
    bare = UserEvaluation(base_loss=3.0, own_loss=2.0, other_losses={}, n_examples=1, n_tokens=9)
    assert set(evaluation_for_manifest(bare)) == {"held_out"}
