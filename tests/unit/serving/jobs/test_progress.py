from datetime import UTC, datetime, timedelta

import pytest

from serving.jobs.progress import WINDOW, estimate, measure_rate

START = datetime(2030, 1, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def test_nothing_is_said_before_enough_was_measured() -> None:
    assert measure_rate([at(1), at(2)], since=START, now=at(10)) is None
    assert estimate(5, None) is None


def test_the_rate_is_what_came_to_an_end_since_the_batch_began() -> None:
    assert measure_rate([at(10), at(20), at(30)], since=START, now=at(30)) == pytest.approx(0.1)


def test_what_ended_before_a_pause_does_not_count_for_the_time_after_it() -> None:
    assert measure_rate([at(1), at(2), at(3), at(101)], since=at(100), now=at(110)) is None


def test_only_the_latest_are_counted_so_that_a_change_of_speed_shows() -> None:
    ended = [at(1000 + 2 * number) for number in range(WINDOW)]
    now = max(ended)
    assert measure_rate(ended, since=START, now=now) == pytest.approx(0.5)


def test_a_batch_in_which_nothing_ends_any_more_slows_down() -> None:
    ended = [at(1), at(2), at(3)]
    quick, slow = (measure_rate(ended, since=START, now=at(now)) for now in (3, 300))
    assert quick == pytest.approx(1.0)
    assert slow == pytest.approx(0.01)


def test_what_is_left_takes_its_share_of_the_rate() -> None:
    assert estimate(30, 0.5) == pytest.approx(60)
    assert estimate(0, None) == 0
