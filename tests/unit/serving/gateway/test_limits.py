from __future__ import annotations

import pytest

from serving.errors import RateExceeded, TooManyRequestsAtOnce
from serving.gateway.limits.bucket import Bucket
from serving.gateway.limits.limiter import Allowance, Limiter
from serving.gateway.repository import TenantLimit

USUAL = TenantLimit()


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_lets_a_burst_through_and_then_its_rate() -> None:
    bucket = Bucket(per_second=2, burst=3, now=0.0)
    assert [bucket.take(0.0) for _ in range(4)] == [0, 0, 0, 0.5]
    assert bucket.take(0.5) == 0
    assert bucket.take(0.5) == 0.5
    assert bucket.left(100.0) == 3, "it fills no further than its size"
    assert bucket.full_in(100.0) == 0


def test_a_clock_that_goes_back_gives_nothing_away() -> None:
    bucket = Bucket(per_second=1, burst=1, now=10.0)
    assert bucket.take(10.0) == 0
    assert bucket.take(5.0) > 0
    assert bucket.take(5.5) > 0


def test_over_any_while_no_more_pass_than_the_burst_and_the_rate_allow() -> None:
    clock = Clock()
    limiter = Limiter(Allowance(requests_per_second=5, burst=10, concurrent=100), clock=clock)
    passed = 0
    for step in range(1000):
        clock.now = step * 0.01
        try:
            with limiter.enter("a", USUAL):
                passed += 1
        except RateExceeded:
            pass
    assert 10 + 5 * 9 <= passed <= 10 + 5 * 10


def test_a_refusal_says_when_to_come_back_and_then_there_is_a_token() -> None:
    clock = Clock()
    limiter = Limiter(Allowance(requests_per_second=0.25, burst=1, concurrent=9), clock=clock)
    limiter.enter("a", USUAL)
    with pytest.raises(RateExceeded) as refused:
        limiter.enter("a", USUAL)
    clock.now = refused.value.details["retry_after_seconds"]
    assert clock.now == 4
    limiter.enter("a", USUAL)


def test_places_come_back_when_their_block_ends_however_it_ends() -> None:
    limiter = Limiter(Allowance(requests_per_second=100, burst=100, concurrent=1))
    for _ in range(3):
        with limiter.enter("a", USUAL), pytest.raises(TooManyRequestsAtOnce):
            limiter.enter("a", USUAL)
        with pytest.raises(ZeroDivisionError):
            fail_in(limiter)
        with limiter.enter("b", USUAL), limiter.enter("a", USUAL):
            pass


def fail_in(limiter: Limiter) -> None:
    with limiter.enter("a", USUAL):
        raise ZeroDivisionError


def test_copies_divide_everything_and_leave_everybody_at_least_one() -> None:
    copies = 4
    limiter = Limiter(Allowance(requests_per_second=0.001, burst=8, concurrent=6), copies=lambda: copies)
    held = [limiter.enter("a", USUAL)]
    with pytest.raises(TooManyRequestsAtOnce):
        limiter.enter("a", USUAL)
    held[0].__exit__(None, None, None)
    limiter.enter("a", USUAL).__exit__(None, None, None)
    with pytest.raises(RateExceeded):
        limiter.enter("a", USUAL)
    copies = 100
    limiter.enter("b", USUAL)


def test_a_tenants_own_limit_counts_at_once_and_one_value_leaves_the_others() -> None:
    limiter = Limiter(Allowance(requests_per_second=0.001, burst=5, concurrent=100))
    limiter.enter("a", USUAL)
    tight = TenantLimit(burst=2)
    limiter.enter("a", tight)
    limiter.enter("a", tight)
    with pytest.raises(RateExceeded):
        limiter.enter("a", tight)
    assert USUAL.concurrent is None
