from __future__ import annotations

from itertools import pairwise

import pytest

from training.loop import rate_share
from training.stopping import Watch, affordable_looks, look_steps


def watch(*losses: float, patience: int = 2) -> Watch:
    seen = Watch(patience=patience)
    for number, loss in enumerate(losses, start=1):
        seen.see(10 * number, loss)
    return seen


def test_the_best_step_is_the_first_with_the_lowest_loss() -> None:
    assert watch().best_step is None
    assert watch(3.0, 2.0, 2.0, 2.5).best_step == 20


def test_a_look_says_whether_it_is_the_best_so_far() -> None:
    seen = Watch(patience=9)
    assert [seen.see(step, loss) for step, loss in ((1, 3.0), (2, 3.0), (3, 2.0), (4, 2.5))] == [
        True, False, True, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("losses", "enough"),
    [((), False), ((1.0,), False), ((3.0, 1.0, 2.0), False), ((3.0, 1.0, 2.0, 1.5), True), ((1.0, 1.0, 1.0), True)],
)
def test_enough_is_seen_after_so_many_looks_without_a_better_one(losses: tuple[float, ...], enough: bool) -> None:
    assert watch(*losses).enough is enough


@pytest.mark.parametrize(
    ("total", "looks", "expected"),
    [(12, 3, [4, 8, 12]), (10, 3, [3, 7, 10]), (2, 6, [1, 2]), (1, 6, [1]), (0, 6, [])],
)
def test_looks_are_spread_evenly_and_the_last_step_is_one(total: int, looks: int, expected: list[int]) -> None:
    assert list(look_steps(total, looks)) == expected


@pytest.mark.parametrize(
    ("trained", "watched", "looks"),
    [(10_000, 500, 6), (10_000, 1_000, 3), (10_000, 1_001, 2), (10_000, 1_501, 0), (10, 0, 3)],
)
def test_looks_take_at_most_a_tenth_of_the_training_and_one_alone_is_not_taken(
    trained: int, watched: int, looks: int
) -> None:
    assert affordable_looks(6, trained_tokens=trained, watched_tokens=watched) == looks
    assert affordable_looks(1, trained_tokens=trained, watched_tokens=watched) == 1


def test_the_rate_rises_to_its_peak_and_falls_in_a_line() -> None:
    shares = [rate_share(number, steps=10, warmup_share=0.2) for number in range(10)]
    assert shares[:2] == [0.5, 1.0]
    assert all(later < earlier for earlier, later in pairwise(shares[1:]))
    assert 0 < shares[-1] < 0.2
    falls = [earlier - later for earlier, later in pairwise(shares[1:])]
    assert max(falls) == pytest.approx(min(falls))


def test_without_warm_up_the_first_step_has_the_whole_rate() -> None:
    assert rate_share(0, steps=4, warmup_share=0.0) == 1.0
    assert rate_share(3, steps=4, warmup_share=0.0) == 0.25
