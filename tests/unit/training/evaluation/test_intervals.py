from __future__ import annotations

import json
import random

import pytest

from training.evaluation.intervals import Estimate, estimate, estimate_ratio


def test_equal_measurements_and_seed_give_the_same_interval() -> None:
    values = [0.1, 0.4, 0.35, 0.8]
    assert estimate(values, seed=7) == estimate(values, seed=7)
    assert estimate(values, seed=7) != estimate(values, seed=8)


def test_the_mean_lies_within_the_interval_and_constant_values_leave_no_doubt() -> None:
    found = estimate([0.0, 1.0, 1.0, 1.0], seed=0)
    assert found.mean == 0.75
    assert found.low < 0.75 < found.high
    assert estimate([2.0] * 9, seed=0) == Estimate(mean=2.0, low=2.0, high=2.0, n=9)


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    rng = random.Random(3)
    hits = 0
    for seed in range(60):
        found = estimate([rng.gauss(1.0, 1.0) for _ in range(40)], seed=seed)
        hits += found.low <= 1.0 <= found.high
    assert 50 <= hits <= 60


def test_a_ratio_weighs_rows_by_their_tokens() -> None:
    assert estimate_ratio([10.0, 0.0], [1, 9], seed=0).mean == 1.0


def test_more_rows_narrow_the_interval() -> None:
    few, many = estimate([0.0, 1.0] * 4, seed=1), estimate([0.0, 1.0] * 100, seed=1)
    assert many.high - many.low < few.high - few.low


@pytest.mark.parametrize(("sums", "counts"), [([], []), ([0.0, 0.0], [0, 0])])
def test_nothing_to_estimate_from_is_refused(sums: list[float], counts: list[float]) -> None:
    with pytest.raises(ValueError, match="nothing to estimate"):
        estimate_ratio(sums, counts, seed=0)


def test_an_estimate_survives_its_json_form() -> None:
    found = estimate([0.5, 0.7], seed=0)
    assert Estimate.from_json(json.loads(json.dumps(found.to_json()))) == found
