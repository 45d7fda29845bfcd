import pytest

from serving.jobs import states
from serving.jobs.errors import IllegalBatchTransition
from serving.jobs.states import ENDED, UNFINISHED, BatchState


@pytest.mark.parametrize("state", sorted(UNFINISHED))
def test_what_has_not_ended_can_be_paused_and_canceled(state: BatchState) -> None:
    assert states.pause(state) is BatchState.PAUSED
    assert states.cancel(state) is BatchState.CANCELED


@pytest.mark.parametrize("state", sorted(ENDED))
def test_what_has_ended_cannot_be_paused_or_resumed(state: BatchState) -> None:
    for move in (states.pause, lambda each: states.resume(each, planned=True)):
        with pytest.raises(IllegalBatchTransition, match=f"a batch that is {state.value} cannot be"):
            move(state)


def test_a_paused_batch_goes_on_where_it_was() -> None:
    assert states.resume(BatchState.PAUSED, planned=True) is BatchState.RUNNING
    assert states.resume(BatchState.PAUSED, planned=False) is BatchState.QUEUED


def test_canceling_twice_is_no_error_but_what_is_done_stays_done() -> None:
    assert states.cancel(BatchState.CANCELED) is BatchState.CANCELED
    with pytest.raises(IllegalBatchTransition):
        states.cancel(BatchState.DONE)
