from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from serving.errors import BankInvalid
from serving.extraction.bank import STANDARD_BANK, Bank, Topic, standard_bank
from serving.extraction.bank.filing import topic_of
from serving.extraction.language.splitting import split_clauses
from training import writers

TRAINED = yaml.safe_load((Path(writers.__file__).parent / "questions.yaml").read_text())["topics"]


def test_the_standard_bank_has_these_topics() -> None:
    assert {topic.topic for topic in standard_bank().topics} == {
        "communication_style", "interests", "dislikes", "preferences", "work_and_study",
        "people_and_pets", "places", "possessions", "habits", "opinions",
        "expertise", "working_patterns", "decision_habits",
    }  # fmt: skip


def test_every_topic_that_adapters_are_trained_on_is_asked_about() -> None:
    assert set(TRAINED) < {topic.topic for topic in standard_bank().topics}


@pytest.mark.parametrize(
    "topic", [topic for topic in standard_bank().topics if topic.topic in TRAINED], ids=lambda topic: topic.topic
)
def test_what_is_asked_first_is_what_adapters_are_trained_to_answer(topic: Topic) -> None:
    assert topic.asks(1)[0].text in TRAINED[topic.topic]


def test_fewer_asks_are_the_first_of_more_asks() -> None:
    for topic in standard_bank().topics:
        everything = topic.asks(100)
        assert len({ask.text for ask in everything}) == len(everything)
        for count in range(1, len(everything)):
            assert topic.asks(count) == everything[:count]


def test_every_question_is_asked_before_any_is_asked_in_other_words() -> None:
    for topic in standard_bank().topics:
        first = topic.asks(len(topic.questions))
        assert [ask.question_id for ask in first] == [question.id for question in topic.questions]


def _bank(**changes: object) -> dict[str, object]:
    value: dict[str, object] = yaml.safe_load(STANDARD_BANK.read_text())
    return value | changes


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "not YAML"),
        ("- 1", "must hold name"),
        (yaml.safe_dump(_bank(version="")), "version"),
        (yaml.safe_dump(_bank(topics=[])), "topics"),
        (yaml.safe_dump(_bank(extra=1)), "extra"),
        ("name: a\nversion: '1'\ntopics: [{topic: x, title: X, cues: [y], questions: []}]", "questions"),
        (
            "name: a\nversion: '1'\ntopics: [{topic: x, title: X, cues: [y], "
            "questions: [{id: q, paraphrases: [a, b], answer_schema: {type: integer}}]}]",
            "must be a string",
        ),
        (
            "name: a\nversion: '1'\ntopics: [{topic: x, title: X, questions: [{id: q, paraphrases: [a, b]}]}]",
            "answer_schema",
        ),
    ],
)
def test_a_bad_bank_is_refused_with_file_and_reason(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "bank.yaml"
    path.write_text(text)
    with pytest.raises(BankInvalid, match=reason) as refused:
        Bank.read(path)
    assert str(path) in refused.value.message


def test_a_missing_bank_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BankInvalid, match="cannot be read"):
        Bank.read(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("statement", "asked_under", "topic"),
    [
        ("I hate football", "interests", "dislikes"),
        ("I like football", "dislikes", "interests"),
        ("I love my dog", "people_and_pets", "people_and_pets"),
        ("I love my dog", "interests", "interests"),
        ("I study biology", "habits", "work_and_study"),
        ("I usually get up late", "opinions", "habits"),
        ("My favorite color is blue", "places", "preferences"),
        ("I grew up in Texas", "places", "places"),
        ("I breathe air", "places", None),
        ("I am good at repairing clocks", "opinions", "expertise"),
        ("I work best at night", "opinions", "working_patterns"),
        ("I decide with my gut", "places", "decision_habits"),
    ],
)
def test_a_statement_is_filed_under_a_topic_that_it_fits(statement: str, asked_under: str, topic: str | None) -> None:
    (clause,) = split_clauses(statement)
    assert topic_of(clause, bank=standard_bank(), asked_under=[asked_under]) == topic
