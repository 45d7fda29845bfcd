from __future__ import annotations

import math

import pytest

from serving.extraction.scoring.confidence import Scores, features, standard_calibration


def confidence(**scores: object) -> float:
    values = {"agreeing": 0, "asked": 6, "contrast": None, "surprise": 25.0, "supporting": 1, "contradicting": 0}
    return standard_calibration().confidence(Scores(**{**values, **scores}))  # type: ignore[arg-type]


def test_a_platitude_that_only_the_user_says_is_less_likely_than_not() -> None:
    assert confidence(contrast=0.0) < 0.5
    assert confidence(contrast=0.05, supporting=2) < 0.5


def test_what_the_adapter_learnt_or_says_unasked_is_likelier_than_not() -> None:
    assert confidence(contrast=1.5) > 0.5
    assert confidence(contrast=0.5, agreeing=4) > 0.5
    assert confidence(agreeing=3) > 0.5


@pytest.mark.parametrize("score", ["agreeing", "contrast", "surprise", "supporting"])
def test_more_of_any_score_never_makes_a_fact_less_likely(score: str) -> None:
    found = [confidence(**{"contrast": 0.5, score: value}) for value in (1, 2, 3, 4, 5)]
    assert found == sorted(found)


def test_what_many_would_say_is_less_likely_a_persons_own_though_its_words_are_known_by_heart() -> None:
    assert confidence(contrast=1.5, surprise=12.0) < 0.5 < confidence(contrast=1.5, surprise=25.0)


def test_turns_that_say_the_opposite_count_against_it() -> None:
    assert confidence(contrast=1.0, contradicting=2) < confidence(contrast=1.0)
    assert features(Scores(agreeing=0, asked=1, contrast=0, surprise=9, supporting=3, contradicting=3)).support == 0


@pytest.mark.parametrize("value", [1e9, -1e9, math.inf, -math.inf])
def test_no_contrast_and_no_surprise_makes_certain(value: float) -> None:
    assert 0 < confidence(contrast=value) <= 1
    assert 0 < confidence(contrast=1.0, surprise=value) <= 1


def test_the_shipped_figures_say_where_they_come_from_and_fitted_ones_how_good_they_are() -> None:
    calibration = standard_calibration()
    if calibration.provenance.basis == "fitted":
        assert calibration.measured is not None
        assert calibration.provenance.people > 0
        assert calibration.measured.brier < calibration.measured.brier_of_the_mean
    else:
        assert (calibration.measured, calibration.provenance.people) == (None, 0)
