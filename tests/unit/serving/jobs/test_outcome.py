import pytest

from kit.errors import DatabaseUnavailable, StorageUnavailable
from registry.errors import AliasNotFound, NotServable, RegistryUnavailable
from serving.errors import EngineAnswerUnusable, EngineRefused, EngineTimeout, EngineUnavailable
from serving.jobs.errors import TookTooLong
from serving.jobs.outcome import Fate, explain, fate_of


def refused(status: int) -> EngineRefused:
    exc = EngineRefused("no")
    exc.status_code = status
    return exc


@pytest.mark.parametrize("exc", [DatabaseUnavailable(), StorageUnavailable(), RegistryUnavailable()])
@pytest.mark.parametrize("answers", [True, False])
def test_a_part_that_is_away_is_waited_for(exc: Exception, answers: bool) -> None:
    assert fate_of(exc, engine_answers=answers) is Fate.WAITS


def test_an_engine_that_is_away_is_waited_for_and_one_that_is_there_and_refuses_is_no_outage() -> None:
    assert fate_of(EngineUnavailable(), engine_answers=False) is Fate.WAITS
    assert fate_of(EngineUnavailable(), engine_answers=True) is Fate.AGAIN


@pytest.mark.parametrize(
    "exc",
    [refused(429), refused(409), refused(404), EngineTimeout(), EngineAnswerUnusable(), TookTooLong(), KeyError()],
)
def test_what_may_pass_is_tried_again(exc: Exception) -> None:
    assert fate_of(exc, engine_answers=True) is Fate.AGAIN


@pytest.mark.parametrize("exc", [refused(400), refused(422), AliasNotFound(), NotServable()])
def test_what_cannot_pass_ends_the_user(exc: Exception) -> None:
    assert fate_of(exc, engine_answers=True) is Fate.FAILED


def test_an_error_that_is_not_ours_is_told_by_its_kind_alone() -> None:
    assert explain(KeyError("somebody's words")) == {
        "code": "internal",
        "message": "something broke on our side: KeyError",
    }
    assert explain(EngineTimeout())["code"] == "engine-timeout"
