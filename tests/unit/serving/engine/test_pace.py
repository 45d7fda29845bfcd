"""Steps are as large as the engine has them until live requests come, and bounded while they do."""

from __future__ import annotations

import pytest

from serving.engine.pace import EXPECT_LIVE_SECONDS, Pace, Step, Work

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


def test_beside_a_live_request_batch_prompts_have_a_few_tokens(pace: Pace) -> None:
    works = [newcomer(30, live=True), *[answering(live=False)] * 14, *[newcomer(64, live=False)] * 4]
    assert pace.step(works, most=MOST) == Step(30 + 14 + BATCH_PROMPTS)
    assert pace.step([answering(live=True), begun(40, live=False)], most=MOST) == Step(1 + BATCH_PROMPTS)


def test_a_step_never_has_more_than_the_engine_has(pace: Pace) -> None:
    assert pace.step([newcomer(5000, live=True), newcomer(64, live=False)], most=MOST) == Step(MOST)


def test_a_long_batch_prompt_that_has_begun_leaves_a_live_newcomer_its_tokens(pace: Pace) -> None:
    works = [begun(2000, live=False), newcomer(30, live=True)]
    assert pace.step(works, most=MOST) == Step(30 + BATCH_PROMPTS, tokens_each=BATCH_PROMPTS)


@pytest.mark.parametrize(
    "works",
    [
        [begun(2000, live=False), begun(30, live=True)],  # whoever is live comes first among those that run
        [begun(BATCH_PROMPTS, live=False), newcomer(300, live=True)],
        [newcomer(2000, live=False), newcomer(300, live=True)],
        [begun(2000, live=False), answering(live=True)],
    ],
)
def test_a_live_prompt_is_cut_only_where_a_batch_prompt_would_take_its_place(pace: Pace, works: list[Work]) -> None:
    assert pace.step(works, most=MOST).tokens_each is None


def test_live_requests_are_expected_for_a_while_after_the_last(pace: Pace, clock: Clock) -> None:
    batch = [newcomer(500, live=False)]
    pace.step([answering(live=True)], most=MOST)
    clock.seconds += EXPECT_LIVE_SECONDS - 0.1
    assert pace.step(batch, most=MOST) == Step(BATCH_PROMPTS)
    clock.seconds += 0.1
    assert pace.step(batch, most=MOST) == Step(MOST)


def test_there_is_always_room_for_some_batch_prompt(pace: Pace) -> None:
    """Or batch requests would keep their slots and seats for nothing while live ones keep coming."""
    works = [answering(live=True)] * 60 + [begun(64, live=False)]
    assert pace.step(works, most=MOST).tokens == 60 + BATCH_PROMPTS
