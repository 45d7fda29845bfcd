from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from serving.errors import BudgetTooSmall, ProfileExists
from serving.extraction.profile import (
    AdapterVersion,
    Agreement,
    Asked,
    BankVersion,
    CalibrationVersion,
    Marked,
    Pattern,
    Profile,
    Quote,
    Statement,
    TopicSection,
    profile_schema,
    schema_text,
)
from serving.extraction.profile.fact_id import fact_id
from serving.extraction.profile.upgrade import read_document
from serving.extraction.render import FILES, files, render_markdown, write_profile
from serving.extraction.render.context import render_context
from serving.extraction.render.tokens import CountTokens, estimate_tokens, token_counter

SCHEMA_FILE = Path(__file__).parents[4] / "docs" / "profile.schema.json"
QUOTE = Quote(quote="I love tea", transcript_id="c" * 32, turn=4, time=datetime(2020, 1, 2, tzinfo=UTC))


def a_profile(**changes: Any) -> Profile:
    statement = Statement(
        id=fact_id("I love tea"),
        text="I love tea",
        wording="adapter",
        confidence=0.875,
        agreement=Agreement(k=2, n=4),
        contrast=1.5,
        first_seen=datetime(2020, 1, 2, tzinfo=UTC),
        last_seen=datetime(2021, 3, 4, tzinfo=UTC),
        support=(QUOTE,),
        contradictions=(Quote(quote="i hate *tea* <b>", transcript_id="d" * 32, turn=0),),
    )
    values: dict[str, Any] = {
        "user": "ann",
        "adapter": AdapterVersion(version=3, version_id="v" + "0" * 32),
        "bank": BankVersion(name="lorry.standard", version="1"),
        "calibration": CalibrationVersion(version="test", basis="prior"),
        "generated_at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "asked": Asked(questions=20, samples=40, unusable_answers=1, unsupported_claims=7, uncertain_claims=5),
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
        Statement(id=fact_id("I love tea"), text="I love tea", wording="adapter", confidence=1, support=())


def test_a_person_may_state_without_support_and_says_who_and_when() -> None:
    values: dict[str, Any] = {"id": fact_id("x"), "text": "I love tea", "wording": "person", "confidence": 1}
    with pytest.raises(ValidationError, match="who and when"):
        Statement(**values)
    mark = Marked(correction_id=1, kind="edited", by="ann", at=datetime(2026, 1, 1, tzinfo=UTC))
    assert Statement(**values, correction=mark).support == ()


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
        "- **I love tea** (confidence 0.88; said in 2 of 4 answers; seen 2020-01-02 to 2021-03-04)\n"
        "  > “I love tea” (2020-01-02, transcript cccccccc, turn 4)" in page
    )
    assert "of all those to questions on the topics where it came up" in page
    assert "## Places\n\nNot stated.\n" in page
    assert "7 further claims" in page
    assert "5 that had them, because anybody might have said them" in page
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
    assert (facts[0]["kind"], patterns_kind(directory)) == ("fact", {"pattern"})
    assert facts[0]["support"][0]["quote"] == "I love tea"
    patterns = [json.loads(line) for line in (directory / "patterns.jsonl").read_text().splitlines()]
    assert patterns[0]["count"] == 3
    assert [path.name for path in directory.parent.iterdir()] == ["ann"]


def test_a_failed_write_leaves_the_older_profile_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "ann"
    write_profile(a_profile(), directory)

    def full_disk(profile: Profile) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "render_markdown", full_disk)
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


def patterns_kind(directory: Path) -> set[str]:
    return {json.loads(line)["kind"] for line in (directory / "patterns.jsonl").read_text().splitlines()}


@pytest.mark.parametrize("other", ["i really love the tea!", "Well, I love tea", "I LOVE TEA."])
def test_articles_emphasis_and_openers_do_not_change_a_facts_id(other: str) -> None:
    assert fact_id(other) == fact_id("I love tea")


def test_other_claims_have_other_ids() -> None:
    others = ["I don't love tea", "I love coffee", "I loved tea", "We love tea", "I love tea with milk", "?", "", "!"]
    assert len({fact_id(text) for text in ["I love tea", *others]}) == len(others) + 1


def test_a_profile_of_the_first_schema_is_read_as_todays() -> None:
    old = a_profile().model_dump(mode="json")
    old["schema_version"] = "lorry.profile/1"
    del old["calibration"]
    for key in ("own_statements", "uncertain_claims"):
        del old["asked"][key]
    statement = old["topics"][0]["statements"][0]
    for key in ("id", "confidence", "contrast", "first_seen", "last_seen", "correction"):
        del statement[key]
    profile = read_document(old)
    (_, read), *_ = profile.statements()
    assert (read.id, read.text) == (fact_id("I love tea"), "I love tea")
    assert read.first_seen == QUOTE.time
    assert 0 < read.confidence < 1
    assert read_document(json.loads(profile.to_bytes())) == profile


def many_facts(count: int) -> Profile:
    first = a_profile().topics[0].statements[0]
    facts = tuple(
        first.model_copy(
            update={"text": f"I love thing number {n}", "confidence": round(n / count, 3), "contradictions": ()}
        )
        for n in range(count)
    )
    return a_profile(topics=(TopicSection.of("interests", "Interests", facts),))


def test_a_context_holds_the_surest_facts_first_and_patterns_last() -> None:
    text = render_context(many_facts(5))
    facts = [line for line in text.splitlines() if line.startswith("- I love")]
    assert facts[0] == "- I love thing number 4 [interests, 0.80, last 2021-03]"
    assert [int(line.split()[5]) for line in facts] == [4, 3, 2, 1, 0]
    assert text.endswith("How they write:\n- Often asks: 3 of 12.\n")


@pytest.mark.parametrize("budget", [64, 65, 100, 200, 500, 1000, 100_000])
@pytest.mark.parametrize("count", [estimate_tokens, len, lambda text: len(text.split())])
def test_a_context_never_exceeds_its_budget_and_leaves_out_the_least_sure(budget: int, count: CountTokens) -> None:
    profile = many_facts(200)
    try:
        text = render_context(profile, budget_tokens=budget, count=count)
    except BudgetTooSmall:
        assert count(render_context(many_facts(1))) > budget, "even the heading is too much"
        return
    assert count(text) <= budget
    kept = [int(line.split()[5]) for line in text.splitlines() if line.startswith("- I love")]
    assert kept == list(range(199, 199 - len(kept), -1))
    assert (f"({200 - len(kept)} less certain facts left out)" in text) == (len(kept) < 200)


def test_a_budget_without_room_for_anything_is_refused() -> None:
    with pytest.raises(BudgetTooSmall, match="at least 64"):
        render_context(a_profile(), budget_tokens=63)


def test_an_empty_profile_says_that_nothing_is_stated() -> None:
    empty = a_profile(topics=(TopicSection.of("interests", "Interests", ()),), patterns=())
    assert render_context(empty).endswith("Nothing is stated.\n")


def test_a_context_names_the_newest_contradiction_on_one_line_that_formats_nothing() -> None:
    text = render_context(a_profile())
    assert "but once: “i hate \\*tea\\* \\<b\\>”" in text


def test_tokens_are_estimated_where_no_tokenizer_is() -> None:
    assert token_counter(None)("abcd") == estimate_tokens("abcd") == 2
    assert token_counter(Path("nowhere")) is estimate_tokens
    assert estimate_tokens("ééé") == 2


def test_tokens_are_counted_as_the_base_counts_them(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"I": 0, "like": 1, "?": 2}, unk_token="?"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert token_counter(tmp_path)("I like anything") == 3
