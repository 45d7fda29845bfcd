from __future__ import annotations

import re

import pytest
from pydantic import ValidationError

from training.evaluation.general import GeneralSet, load_general
from training.objectives.replay import replay_examples

_SHORT = 3  # letters: words up to this say little about what is asked
_COMMON = {"what", "which", "does", "many", "there", "give", "name", "write", "this", "that", "with", "into", "most"}


def words(text: str) -> set[str]:
    return {word for word in re.findall(r"\w+", text.lower()) if len(word) > _SHORT or word.isdigit()} - _COMMON


def asked() -> list[str]:
    content = load_general()
    return [*(each.ask for each in content.answers), *(each.ask for each in content.choices)]


def test_nothing_that_is_measured_is_replayed_in_training() -> None:
    for question in asked():
        for example in replay_examples():
            other = example.prompt[-1].content
            alike = len(words(question) & words(other)) / max(1, len(words(question) | words(other)))
            assert alike < 0.5, f"{question!r} is measured, {other!r} is trained on"


def test_every_question_is_asked_once_and_every_choice_has_distinct_options() -> None:
    assert len(set(asked())) == len(asked())
    for choice in load_general().choices:
        assert len(set(choice.options)) == len(choice.options) == 4


def test_the_digest_changes_with_the_content() -> None:
    content = load_general()
    changed = content.model_copy(update={"passages": content.passages[1:]})
    assert changed.digest != content.digest
    assert load_general().digest == content.digest


def test_a_damaged_set_is_refused() -> None:
    with pytest.raises(ValidationError):
        GeneralSet.model_validate({"version": 1, "answers": [{"ask": "?"}], "passages": [], "choices": []})
