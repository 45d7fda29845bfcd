"""Steps are as large as the engine has them until live requests come, and bounded while they do."""

from __future__ import annotations

import pytest

from serving.engine.pace import EXPECT_LIVE_SECONDS, MOST_STEPS_ASIDE, Pace, Step, Work

MOST, BATCH_PROMPTS = 256, 64


class Clock:
    seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pace(clock: Clock) -> Pace:
    return Pace(batch_prompt_tokens=BATCH_PROMPTS, clock=clock)


def newcomer(tokens: int, *, live: bool) -> Work:
    return Work(live=live, answering=False, running=False, tokens=tokens)


def begun(tokens: int, *, live: bool) -> Work:
    return Work(live=live, answering=False, running=True, tokens=tokens)


def answering(*, live: bool) -> Work:
    return Work(live=live, answering=True, running=True, tokens=1)


def test_batch_work_alone_has_the_whole_step(pace: Pace) -> None:
    works = [newcomer(500, live=False), begun(300, live=False), answering(live=False)]
    assert pace.step(works, most=MOST) == Step(MOST)
    assert pace.step([], most=MOST) == Step(MOST)


def test_beside_a_live_request_that_is_answering_batch_prompts_have_a_few_tokens(pace: Pace) -> None:
    works = [answering(live=True), *[answering(live=False)] * 14, *[newcomer(64, live=False)] * 4]
    assert pace.step(works, most=MOST) == Step(1 + 14 + BATCH_PROMPTS)


def test_in_the_step_of_a_live_prompt_batch_prompts_stand_aside(pace: Pace) -> None:
    for live in (newcomer(30, live=True), begun(30, live=True)):
        works = [live, *[answering(live=False)] * 14, begun(64, live=False)]
        assert pace.step(works, most=MOST) == Step(MOST, batch_prompts=False)


def test_nobody_stands_aside_for_a_live_prompt_that_cannot_begin_yet(pace: Pace) -> None:
    works = [newcomer(0, live=True), begun(500, live=False)]
    assert pace.step(works, most=MOST) == Step(BATCH_PROMPTS)


def test_a_step_never_has_more_than_the_engine_has(pace: Pace) -> None:
    works = [*[answering(live=True)] * (MOST - BATCH_PROMPTS + 1), newcomer(64, live=False)]
    assert pace.step(works, most=MOST) == Step(MOST)


def test_live_requests_are_expected_for_a_while_after_the_last(pace: Pace, clock: Clock) -> None:
    batch = [newcomer(500, live=False)]
    pace.step([answering(live=True)], most=MOST)
    clock.seconds += EXPECT_LIVE_SECONDS - 0.1
    assert pace.step(batch, most=MOST) == Step(BATCH_PROMPTS)
    clock.seconds += 0.1
    assert pace.step(batch, most=MOST) == Step(MOST)


def test_batch_prompts_get_on_although_a_live_one_is_in_every_step(pace: Pace) -> None:
    """Or batch requests would keep their slots and seats for nothing while live ones keep coming.

    In their step they have no more than in any other: a live newcomer would come after them, so its tokens are not in.
    """
    works = [newcomer(30, live=True), begun(20, live=True), begun(64, live=False)]
    steps = [pace.step(works, most=MOST) for _ in range(2 * (MOST_STEPS_ASIDE + 1))]
    aside, among = Step(MOST, batch_prompts=False), Step(20 + BATCH_PROMPTS)
    assert steps == 2 * [*[aside] * MOST_STEPS_ASIDE, among]


def test_batch_prompts_have_stood_aside_only_where_live_ones_follow_each_other(pace: Pace) -> None:
    live, later = [newcomer(30, live=True)], [answering(live=True)]
    for _ in range(MOST_STEPS_ASIDE):
        pace.step(live, most=MOST)
    assert pace.step(later, most=MOST).batch_prompts
    assert not pace.step(live, most=MOST).batch_prompts


def test_batch_prompts_that_stood_aside_in_vain_have_the_next_step(pace: Pace) -> None:
    works = [newcomer(30, live=True), begun(64, live=False)]
    assert not pace.step(works, most=MOST).batch_prompts
    pace.stood_aside_in_vain()
    assert pace.step(works, most=MOST) == Step(BATCH_PROMPTS)
    assert not pace.step(works, most=MOST).batch_prompts
