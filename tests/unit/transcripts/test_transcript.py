"""A transcript's identity depends on its turns alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from transcripts.repository import match_any
from transcripts.transcript import Transcript, Turn

NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)


def transcript(**changes: object) -> Transcript:
    values = {"turns": (Turn(role="user", text="hi", time=NOON),), "source_format": "plain-text", "title": "t"}
    return Transcript(**{**values, **changes})  # type: ignore[arg-type]


def test_the_id_does_not_depend_on_format_or_title() -> None:
    assert transcript(source_format="sharegpt", title="").id == transcript().id


def test_the_id_depends_on_roles_texts_and_times() -> None:
    others = [
        (Turn(role="other", text="hi", time=NOON),),
        (Turn(role="user", text="hi!", time=NOON),),
        (Turn(role="user", text="hi"),),
        (Turn(role="user", text="hi", time=NOON), Turn(role="user", text="hi", time=NOON)),
    ]
    assert len({transcript().id, *(transcript(turns=turns).id for turns in others)}) == 5


def test_the_same_moment_in_another_zone_is_the_same_transcript() -> None:
    paris = NOON.astimezone(timezone(timedelta(hours=1)))
    assert transcript(turns=(Turn(role="user", text="hi", time=paris),)).id == transcript().id


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        Turn(role="user", text="hi", time=NOON.replace(tzinfo=None))


def test_json_round_trip() -> None:
    for one in (transcript(), transcript(turns=(Turn(role="user", text="é 🐝\n"), Turn(role="other", text="x")))):
        back = Transcript.from_json(one.to_json())
        assert back == one
        assert (back.id, back.source_format, back.title) == (one.id, one.source_format, one.title)


def test_words_in_a_search_cannot_become_syntax() -> None:
    assert match_any(["a'b", "c\\", "d & !e"]) == "'a''b' | 'c\\\\' | 'd & !e'"
