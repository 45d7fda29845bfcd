from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.writers import conversations
from training.errors import ConfigInvalid, WriterStale
from training.writers.cost import FREE, Cost, PriceTable, TokenUsage, add_costs, load_prices
from training.writers.extractive import ExtractiveWriter
from training.writers.settings import WriterSettings
from training.writers.spool import DirectorySpool, MemorySpool
from training.writers.state import ItemState, WriterState

USAGE = TokenUsage(requests=1, input_tokens=1_000_000, output_tokens=1_000_000)


def test_the_packaged_table_is_dated_and_says_where_its_prices_are_from() -> None:
    table = load_prices()
    cost = table.cost(USAGE, model="claude-sonnet-5-5", batch=False)
    assert cost.dollars == pytest.approx(12.0)
    assert cost.prices_as_of == table.as_of.isoformat()
    assert cost.prices_source


def test_a_batch_costs_half_and_a_cache_what_the_table_says() -> None:
    table = load_prices()
    usage = TokenUsage(requests=1, cache_write_1h_tokens=10_000, cache_read_tokens=10_000, cache_write_5m_tokens=10_000)
    full = table.cost(usage, model="claude-opus-5-5", batch=False).dollars
    assert full == pytest.approx(4.0 * 0.01 * (2.0 + 0.1 + 1.25))
    assert table.cost(usage, model="claude-opus-5-5", batch=True).dollars == pytest.approx(full / 2)


def test_a_cache_of_five_minutes_pays_for_two_readers_and_one_of_an_hour_does_not() -> None:
    def dollars(**tokens: int) -> float:
        found = load_prices().cost(TokenUsage(requests=2, **tokens), model="claude-haiku-5-5", batch=True).dollars
        assert found is not None
        return found

    assert dollars(cache_write_5m_tokens=1000, cache_read_tokens=1000) < 0.7 * dollars(input_tokens=2000)
    assert dollars(cache_write_1h_tokens=1000, cache_read_tokens=1000) > dollars(input_tokens=2000)


def test_a_long_prompt_has_a_price_of_its_own() -> None:
    table = load_prices()
    short = table.cost(TokenUsage(requests=1, input_tokens=100_000), model="claude-haiku-5-5", batch=False)
    long = table.cost(TokenUsage(requests=1, input_tokens=100_001), model="claude-haiku-5-5", batch=False)
    assert long.dollars == pytest.approx(5 * short.dollars, rel=1e-4)  # type: ignore[operator]


def test_a_dated_name_has_its_models_price_and_an_unknown_one_none() -> None:
    table = load_prices()
    assert table.cost(USAGE, model="claude-opus-5-5-20261101", batch=False).dollars == pytest.approx(24.0)
    assert table.cost(USAGE, model="claude-opus-5-55", batch=False).dollars is None
    assert table.cost(USAGE, model="gpt-x", batch=False).prices_as_of is None


def test_costs_add_up_and_an_unknown_part_makes_the_sum_unknown() -> None:
    table = load_prices()
    one = table.cost(USAGE, model="claude-sonnet-5-5", batch=True)
    both = add_costs(add_costs(FREE, one), one)
    assert both.dollars == pytest.approx(12.0)
    assert both.usage.requests == 2
    unknown = table.cost(USAGE, model="gpt-x", batch=False)
    assert add_costs(one, unknown).dollars is None
    assert Cost.from_json(json.loads(json.dumps(both.to_json()))) == both


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("as_of: today\nsource: s\nmodels: {}", "as_of"),
        ("as_of: 2026-01-01\nsource: ''\nmodels: {}", "source"),
        ("as_of: 2026-01-01\nsource: s\nmodels:\n  m: {input: -1, output: 1}", r"models\.m\.input"),
        ("as_of: 2026-01-01\nsource: s\nmodels:\n  m: {input: 1, outptu: 1}", r"models\.m"),
        ("- 1", "dictionary"),
        ("a: [", "not YAML"),
    ],
)
def test_a_price_table_that_cannot_be_used_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text(text)
    with pytest.raises(ConfigInvalid, match=message):
        load_prices(path)
    with pytest.raises(ConfigInvalid, match="cannot be read"):
        load_prices(tmp_path / "nowhere.yaml")


def test_the_table_is_a_function_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text("as_of: 2026-01-01\nsource: s\nbatch_factor: 0.25\nmodels:\n  m: {input: 1, output: 2}")
    table = load_prices(path)
    assert isinstance(table, PriceTable)
    assert table.cost(USAGE, model="m", batch=True).dollars == pytest.approx(0.75)


def test_a_state_survives_its_json_form() -> None:
    state = WriterState(
        writer="w", plan="p", phase="running", batch="b", batches=("a", "b"), deleted=("a",), intent_at=1.5, mode="x",
        items={"x": ItemState(outcome="done", attempts=2, reason=None, batch="b"), "y": ItemState()}, spent=FREE,
    )  # fmt: skip
    assert WriterState.from_json(json.loads(json.dumps(state.to_json()))) == state
    assert state.progress == (1, 2)
    with pytest.raises(WriterStale, match="schema"):
        WriterState.from_json({**state.to_json(), "schema": "lorry.writer-state/0"})


async def test_the_offline_writer_goes_through_the_same_steps_for_nothing() -> None:
    writer, kept = ExtractiveWriter(), conversations(4)
    assert not writer.remote
    assert (await writer.estimate(kept)).dollars == 0
    state = await writer.begin(kept)
    assert state.written
    written = await writer.collect(await writer.poll(state, kept), kept)
    assert list(written.examples) == writer.write(kept, seed=0)
    assert (await writer.discard(state)).discarded
    with pytest.raises(WriterStale):
        await writer.collect(state, kept[1:])


async def test_a_spool_keeps_whole_answers_and_forgets_them(tmp_path: Path) -> None:
    for spool in (DirectorySpool(tmp_path / "a" / "spool"), MemorySpool()):
        assert await spool.get("one") is None
        await spool.put("one", b"1")
        await spool.put("one", b"2")
        assert await spool.get("one") == b"2"
        await spool.clear()
        await spool.clear()
        assert await spool.get("one") is None
    assert not (tmp_path / "a" / "spool").exists()


@pytest.mark.parametrize("name", ["", "..", "a/b", "a.b", "x" * 65, "a\n"])
async def test_a_spools_names_cannot_leave_it(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="cannot name"):
        await DirectorySpool(tmp_path).put(name, b"")


@pytest.mark.parametrize(
    ("text", "key", "reason"),
    [
        ("names: [Ada Lovelace, 7]", "names.1", "must be a valid string"),
        ("nmaes: [Ada Lovelace]", "nmaes", "is not a field that is known here"),
        ("patterns: {x: '(Lovelace'}", "patterns.x", "is not a regular expression: missing )"),
        ("patterns: {email: Lovelace}", "patterns.email", "is a kind of its own"),
        ("phone_regions: [DE, Lovelace]", "phone_regions.1", "is no region with telephone numbers"),
        ("- Lovelace", "", "must be a valid dictionary"),
        ("Lovelace: [", "redaction.yaml", "is not YAML"),
    ],
)
def test_a_redaction_file_that_cannot_be_used_is_refused_without_repeating_it(
    tmp_path: Path, text: str, key: str, reason: str
) -> None:
    path = tmp_path / "redaction.yaml"
    path.write_text(text)
    with pytest.raises(ConfigInvalid, match=r"redaction\.yaml") as caught:
        WriterSettings(redaction_file=path).redactor()
    assert key in (caught.value.field or "")
    assert reason in caught.value.message
    assert "Lovelace" not in caught.value.message


def test_redaction_is_on_unless_it_is_switched_off(tmp_path: Path) -> None:
    path = tmp_path / "redaction.yaml"
    path.write_text("email: false\nnames: [Ada]\n")
    plain, own = WriterSettings().redactor(), WriterSettings(redaction_file=path).redactor()
    assert plain is not None
    assert own is not None
    assert plain.redact_text("Ada: a@example.org").text == "Ada: [redacted email]"
    assert own.redact_text("Ada: a@example.org").text == "[redacted name]: a@example.org"
    assert WriterSettings(training_redact=False).redactor() is None
    with pytest.raises(ConfigInvalid, match="cannot be read"):
        WriterSettings(redaction_file=tmp_path / "nowhere").redactor()
