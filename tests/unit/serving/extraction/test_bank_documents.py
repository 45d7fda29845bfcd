"""Banks that tenants write, some of them against us."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from serving.errors import BankInvalid
from serving.extraction.bank import standard_bank
from serving.extraction.bank.extension import assemble

PAGE = (Path(__file__).resolve().parents[4] / "docs" / "profiles.md").read_text()


def document(**changes: Any) -> dict[str, Any]:
    question = {"id": "tools.own", "paraphrases": ["Which tools?", "What tools?"], "answer_schema": {"type": "string"}}
    topic = {"topic": "tools", "title": "Tools", "cues": ["hammer"], "questions": [question]}
    return {"name": "acme.bank", "version": "1", "topics": [topic], **changes}


def with_schema(schema: Any) -> dict[str, Any]:
    value = document()
    value["topics"][0]["questions"][0]["answer_schema"] = schema
    return value


def assembled(value: Any) -> Any:
    return assemble(value if isinstance(value, str) else yaml.safe_dump(value), standard=standard_bank())


def test_the_bank_of_the_page_is_one() -> None:
    (shown,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    bank = assembled(shown)
    standard = {topic.topic for topic in standard_bank().topics}
    assert {topic.topic for topic in bank.topics} == {"tools", *standard} - {"opinions"}
    assert bank.topics[0].topic == "tools"


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "maxLength": 160},
        {"type": "string", "enum": ["yes", "no"]},
        {"type": "object", "properties": {"answers": {"type": "array", "items": {"type": "string"}, "maxItems": 5}}},
    ],
)
def test_answers_are_strings_or_lists_of_them(schema: Any) -> None:
    assert assembled(with_schema(schema)).topics[0].questions[0].answer_schema == schema


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "(a+)+$"},
        {"type": "string", "$ref": "http://elsewhere"},
        {"type": "string", "maxLength": 10**9},
        {"type": "string", "maxLength": True},
        {"type": "string", "enum": []},
        {"type": "string", "enum": [1]},
        {"type": "integer"},
        {"type": "object", "properties": {"answers": {"type": "array", "items": {"type": "string", "pattern": "x"}}}},
        {"type": "object", "properties": {"answers": {"type": "array", "items": {"type": "string"}, "maxItems": 99}}},
        {"type": "object", "properties": {"answers": {"type": "array", "items": {"type": "object"}}}},
        {"type": "object", "properties": {"answers": [], "more": {}}},
        {"anyOf": [{"type": "string"}]},
        {},
    ],
)
def test_any_other_schema_is_refused_before_an_engine_compiles_it(schema: Any) -> None:
    with pytest.raises(BankInvalid, match=r"tools\.own"):
        assembled(with_schema(schema))


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
        "a: &a {x0: 1, x1: 1}\n"
        + "".join(
            f"{b}: &{b} {{<<: [{', '.join([f'*{a}'] * 10)}]}}\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
        ),
        "a: &a {<<: *a}",
        "version: 1" + ":1" * 30_000,
        "version: 1" + ":1" * 2_000 + ".5",
        "version: !!float '" + "1:" * 2_000 + "1.5'",
        "version: " + "9" * 60_000,
        "a: &a [*a]",
        "[" * 5000,
        "{a: " * 5000,
        "x" * 300_000,
        "a: !!python/object/apply:os.system [true]",
        "\x00",
        "[]",
        "",
        "12",
        "- a",
    ],
)
@pytest.mark.timeout(60)
def test_what_is_no_bank_or_blows_up_is_refused(text: str) -> None:
    with pytest.raises(BankInvalid):
        assembled(text)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": "lorry.standard"}, "name"),
        ({"name": "A b"}, "name"),
        ({"version": ""}, "version"),
        ({"topics": []}, "topics"),
        ({"topics": document()["topics"] * 2}, ""),
        ({"more": 1}, "more"),
        ({"extends": "another.bank"}, "extends"),
        ({"extends": "lorry.standard", "leave_out": ["nothing"]}, "leave_out"),
    ],
)
def test_a_bad_entry_is_named(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(BankInvalid) as refused:
        assembled(document(**changes))
    assert (refused.value.field or "").startswith(field)


def test_a_topic_of_the_same_name_replaces_the_standards() -> None:
    topic = {**document()["topics"][0], "topic": "opinions"}
    bank = assembled(document(extends="lorry.standard", topics=[topic]))
    (found,) = [each for each in bank.topics if each.topic == "opinions"]
    assert found.title == "Tools"
    assert len(bank.topics) == len(standard_bank().topics)


def test_a_question_id_of_the_standard_cannot_be_used_again() -> None:
    value = document(extends="lorry.standard")
    value["topics"][0]["questions"][0]["id"] = "opinions.think"
    with pytest.raises(BankInvalid, match=r"opinions\.think"):
        assembled(value)
