from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from serving.errors import ProfileExists
from serving.extraction import render
from serving.extraction.profile import (
    AdapterVersion,
    Agreement,
    Asked,
    BankVersion,
    Pattern,
    Profile,
    Quote,
    Statement,
    TopicSection,
    profile_schema,
    schema_text,
)
from serving.extraction.render import FILES, render_markdown, write_profile

SCHEMA_FILE = Path(__file__).parents[4] / "docs" / "profile.schema.json"
QUOTE = Quote(quote="I love tea", transcript_id="c" * 32, turn=4, time=datetime(2020, 1, 2, tzinfo=UTC))


def a_profile(**changes: Any) -> Profile:
    statement = Statement(
        text="I love tea",
        wording="adapter",
        agreement=Agreement(k=2, n=4),
        support=(QUOTE,),
        contradictions=(Quote(quote="i hate *tea* <b>", transcript_id="d" * 32, turn=0),),
    )
    values: dict[str, Any] = {
        "user": "ann",
        "adapter": AdapterVersion(version=3, version_id="v" + "0" * 32),
        "bank": BankVersion(name="lorry.standard", version="1"),
        "generated_at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "asked": Asked(questions=20, samples=40, unusable_answers=1, unsupported_claims=7),
        "topics": (
            TopicSection(topic="interests", title="Interests", statements=(statement,), not_stated=False),
            TopicSection(topic="places", title="Places", not_stated=True),
        ),
        "patterns": (Pattern(name="asks", text="Often asks: 3 of 12.", unit="share", value=0.25, count=3, of=12),),
    }
    return Profile(**values | changes)


def test_the_published_schema_is_current() -> None:
    assert SCHEMA_FILE.read_text() == schema_text(), (
        "run: python -m serving.extraction.profile > docs/profile.schema.json"
    )


def test_a_written_profile_satisfies_the_published_schema_and_reads_back() -> None:
    profile = a_profile()
    jsonschema.Draft202012Validator.check_schema(profile_schema())
    jsonschema.validate(json.loads(profile.to_bytes()), json.loads(SCHEMA_FILE.read_text()))
    assert Profile.model_validate_json(profile.to_bytes()) == profile


def test_a_statement_without_support_cannot_be_built() -> None:
    with pytest.raises(ValidationError, match="support"):
        Statement(text="I love tea", wording="adapter", agreement=Agreement(k=1, n=1), support=())


@pytest.mark.parametrize("not_stated", [True, False])
def test_a_topic_says_not_stated_exactly_when_it_is_empty(not_stated: bool) -> None:
    statements = a_profile().topics[0].statements if not_stated else ()
    with pytest.raises(ValidationError, match="not_stated"):
        TopicSection(topic="x", title="X", statements=statements, not_stated=not_stated)


def test_agreement_is_a_part_of_a_whole() -> None:
    with pytest.raises(ValidationError, match="k must not exceed n"):
        Agreement(k=3, n=2)


def test_the_page_shows_each_statement_with_its_quotes_and_not_stated_where_none() -> None:
    page = render_markdown(a_profile())
    assert "# Profile of ann" in page
    assert (
        "- **I love tea** (said in 2 of 4 answers)\n  > “I love tea” (2020-01-02, transcript cccccccc, turn 4)" in page
    )
    assert "of all those to questions on the topics where it came up" in page
    assert "## Places\n\nNot stated.\n" in page
    assert "7 further claims" in page
    assert "- Often asks: 3 of 12." in page


def test_a_quote_can_neither_format_the_page_nor_break_its_line() -> None:
    page = render_markdown(a_profile())
    assert "*but:* “i hate \\*tea\\* \\<b\\>”" in page
    quote = Quote(quote="a\n# b\r\n[c](http://d)", transcript_id="e", turn=0)
    statement = a_profile().topics[0].statements[0].model_copy(update={"support": (quote,)})
    topics = (TopicSection(topic="x", title="X", statements=(statement,), not_stated=False),)
    assert "“a \\# b \\[c\\](http://d)”" in render_markdown(a_profile(topics=topics))


def test_a_profile_is_four_files_and_replaces_the_older_one(tmp_path: Path) -> None:
    directory = tmp_path / "profiles" / "ann"
    write_profile(a_profile(), directory)
    write_profile(a_profile(user="ann2"), directory)
    assert {path.name for path in directory.iterdir()} == FILES
    assert json.loads((directory / "profile.json").read_text())["user"] == "ann2"
    facts = [json.loads(line) for line in (directory / "facts.jsonl").read_text().splitlines()]
    assert [(fact["topic"], fact["text"], fact["adapter_version"]) for fact in facts] == [
        ("interests", "I love tea", 3)
    ]
    assert facts[0]["support"][0]["quote"] == "I love tea"
    patterns = [json.loads(line) for line in (directory / "patterns.jsonl").read_text().splitlines()]
    assert patterns[0]["count"] == 3
    assert [path.name for path in directory.parent.iterdir()] == ["ann"]


def test_a_failed_write_leaves_the_older_profile_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "ann"
    write_profile(a_profile(), directory)

    def full_disk(profile: Profile) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(render, "render_markdown", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_profile(a_profile(user="ann2"), directory)
    assert json.loads((directory / "profile.json").read_text())["user"] == "ann"
    assert [path.name for path in tmp_path.iterdir()] == ["ann"]


def test_a_directory_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("x")
    with pytest.raises(ProfileExists, match=r"precious\.txt"):
        write_profile(a_profile(), tmp_path)
    with pytest.raises(ProfileExists, match="is a file"):
        write_profile(a_profile(), tmp_path / "precious.txt")
    assert (tmp_path / "precious.txt").read_text() == "x"
