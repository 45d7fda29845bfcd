"""The state machine of jobs: every request in every state."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from training.jobs import states
from training.jobs.errors import IllegalJobTransition
from training.jobs.states import STAGES, Phase, Stage, Standing, State, Wish

Move = Callable[[Standing], Standing]
ALLOWED: dict[str, tuple[Move, dict[State, tuple[State, Wish]]]] = {
    "cancel": (
        states.cancel,
        {
            State.QUEUED: (State.CANCELED, Wish.NONE),
            State.PAUSED: (State.CANCELED, Wish.NONE),
            State.CANCELED: (State.CANCELED, Wish.NONE),
            State.STARTING: (State.STARTING, Wish.CANCEL),
            State.RUNNING: (State.RUNNING, Wish.CANCEL),
        },
    ),
    "pause": (
        states.pause,
        {
            State.QUEUED: (State.PAUSED, Wish.NONE),
            State.PAUSED: (State.PAUSED, Wish.NONE),
            State.STARTING: (State.STARTING, Wish.PAUSE),
            State.RUNNING: (State.RUNNING, Wish.PAUSE),
        },
    ),
    "resume": (states.resume, {State.PAUSED: (State.QUEUED, Wish.NONE)}),
    "retry": (
        states.retry,
        dict.fromkeys((State.FAILED, State.CANCELED, State.REJECTED), (State.QUEUED, Wish.NONE)),
    ),
}


@pytest.mark.parametrize("verb", ALLOWED)
@pytest.mark.parametrize("state", State)
def test_each_request_is_granted_in_its_states_and_refused_in_all_others(verb: str, state: State) -> None:
    move, allowed = ALLOWED[verb]
    if state in allowed:
        to, wish = allowed[state]
        assert move(Standing(state=state)) == Standing(state=to, wish=wish)
    else:
        with pytest.raises(IllegalJobTransition, match=state.value):
            move(Standing(state=state))


def test_a_pause_that_was_not_granted_yet_is_withdrawn() -> None:
    asked = states.pause(Standing(state=State.RUNNING))
    assert states.resume(asked) == Standing(state=State.RUNNING)


def test_a_job_that_is_being_canceled_cannot_be_saved_by_a_pause() -> None:
    canceling = Standing(state=State.RUNNING, wish=Wish.CANCEL)
    with pytest.raises(IllegalJobTransition):
        states.pause(canceling)
    with pytest.raises(IllegalJobTransition):
        states.resume(canceling)


def test_asking_twice_is_asking_once() -> None:
    for move in (states.cancel, states.pause):
        once = move(Standing(state=State.RUNNING))
        assert move(once) == once


def test_every_stage_belongs_to_one_phase_in_the_order_of_the_stages() -> None:
    assert [stage for phase in Phase for stage in STAGES[phase]] == list(Stage)


def test_a_job_goes_on_in_the_phase_whose_stages_it_has_not_finished() -> None:
    assert states.next_phase(frozenset()) is Phase.PREPARE
    assert states.next_phase(frozenset({Stage.SNAPSHOT, Stage.ESTIMATE})) is Phase.PREPARE
    assert states.next_phase(frozenset(STAGES[Phase.PREPARE])) is Phase.TRAIN
    assert states.next_phase(frozenset(Stage)) is Phase.TRAIN
