from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.claude_server import ClaudeServer, Failure
from tests.support.registry_server import serving
from tests.support.writers import again, conversations, finish, settings
from training.config import DatasetConfig
from training.errors import WriterFailed, WriterRefused, WriterStale, WriterTooExpensive, WriterUnavailable
from training.writers.factory import make_writer
from training.writers.spool import DirectorySpool, MemorySpool
from training.writers.writer import QuestionWriter, Written
from transcripts.redaction import Redactor

CONFIG = DatasetConfig(writer="claude", pairs=200)
KEPT = conversations()


@pytest.fixture
def claude() -> ClaudeServer:
    return ClaudeServer()


@pytest.fixture
async def url(claude: ClaudeServer) -> AsyncIterator[str]:
    async with serving(claude.app()) as address:
        yield address


@pytest.fixture
def writer(url: str) -> QuestionWriter:
    return make_writer(settings(url), CONFIG)


async def test_twenty_four_transcripts_give_pairs_of_both_forms_and_signs(claude: ClaudeServer, url: str) -> None:
    writer = make_writer(settings(url), CONFIG.model_copy(update={"pairs": 750}))
    kept = [*conversations(), *conversations(30)[24:]]
    many = [replace(one, turns=one.turns * 3) for one in kept]
    written = await writer.collect(await finish(writer, await writer.begin(many), many), many)
    assert 500 <= len(written.examples) <= 1000
    answers = [example.answer for example in written.examples if example.answer]
    opened = [example for example in written.examples if example.answer is None]
    assert abs(len(answers) - len(opened)) <= len(written.examples) * 0.1
    assert abs(answers.count("yes") - answers.count("no")) <= len(answers) * 0.1
    assert {example.kind for example in written.examples} == {"statement", "negative"}


async def test_nothing_is_submitted_before_a_sample_was_answered_and_the_intent_kept(
    claude: ClaudeServer, writer: QuestionWriter
) -> None:
    state = await writer.begin(KEPT)
    assert (claude.calls["ask"], claude.calls["create"]) == (1, 0)
    state = await writer.poll(again(state), KEPT)
    assert claude.calls["create"] == 0
    state = await writer.poll(again(state), KEPT)
    assert claude.calls["create"] == 1
    assert state.batch == "msgbatch_001"


async def test_a_sampled_request_is_not_paid_again_in_the_batch(claude: ClaudeServer, writer: QuestionWriter) -> None:
    state = await finish(writer, await writer.begin(KEPT), KEPT)
    (sampled,) = [name for name, item in state.items.items() if item.batch is None]
    assert sampled not in claude.paid
    assert claude.paid["at once"] == 1
    assert set(claude.paid.values()) == {1}


async def test_requests_have_structured_output_and_a_cached_beginning_that_both_forms_share(
    claude: ClaudeServer, writer: QuestionWriter
) -> None:
    await finish(writer, await writer.begin(KEPT), KEPT)
    for params in claude.sent:
        assert params["output_config"]["format"]["type"] == "json_schema"
        assert params["output_config"]["format"]["schema"]["additionalProperties"] is False
        first, second = params["messages"][0]["content"]
        assert first["cache_control"] == {"type": "ephemeral", "ttl": "5m"}
        assert "cache_control" not in second
    beginnings = {params["messages"][0]["content"][0]["text"] for params in claude.sent}
    assert len(claude.sent) == 2 * len(beginnings)


@pytest.mark.parametrize("cache", ["off", "5m", "1h"])
async def test_how_long_a_beginning_is_kept_is_a_setting_and_reckoned_with(
    claude: ClaudeServer, url: str, cache: str
) -> None:
    writer = make_writer(settings(url, writer_cache=cache), CONFIG)
    usage = (await writer.estimate(KEPT)).usage
    tokens = {"off": usage.input_tokens, "5m": usage.cache_write_5m_tokens, "1h": usage.cache_write_1h_tokens}
    assert tokens[cache] == usage.prompt_tokens > 0
    await writer.begin(KEPT)
    first = claude.sent[-1]["messages"][0]["content"][0]
    assert first.get("cache_control") == (None if cache == "off" else {"type": "ephemeral", "ttl": cache})


async def test_some_five_hundred_to_a_thousand_pairs_come_of_twenty_four_transcripts(
    claude: ClaudeServer, url: str
) -> None:
    writer = make_writer(settings(url), DatasetConfig(writer="claude"))
    written = await writer.collect(await finish(writer, await writer.begin(KEPT), KEPT), KEPT)
    assert 500 <= len(written.examples) <= 1000, written.dropped
    assert {example.kind for example in written.examples} == {"statement", "negative"}
    answers = Counter(example.answer for example in written.examples)
    assert min(answers["yes"], answers["no"], answers[None]) > 100, answers


async def test_the_cost_is_estimated_before_and_recorded_after(claude: ClaudeServer, writer: QuestionWriter) -> None:
    estimate = await writer.estimate(KEPT)
    assert claude.calls["ask"] == claude.calls["create"] == 0
    assert estimate.estimated
    assert estimate.dollars is not None
    assert estimate.dollars > 0
    state = await finish(writer, await writer.begin(KEPT), KEPT)
    written = await writer.collect(state, KEPT)
    requests = len(state.items)
    assert written.cost.usage.requests == requests
    assert written.cost.usage.output_tokens == 200 * requests
    assert not written.cost.estimated
    # Haiku 5.5: $0.10 in, $0.50 out; an hour's cache is written for twice and read for a tenth; a batch is half.
    each = (100 * 0.10 + 1000 * 2 * 0.10 + 500 * 0.1 * 0.10 + 200 * 0.50) / 1e6
    assert written.cost.dollars == pytest.approx(each + (requests - 1) * each / 2)


async def test_more_than_may_be_spent_is_refused_before_anything_is_bought(claude: ClaudeServer, url: str) -> None:
    with pytest.raises(WriterTooExpensive, match="LORRY_WRITER_MAX_DOLLARS") as caught:
        await make_writer(settings(url, writer_max_dollars=0.000001), CONFIG).begin(KEPT)
    assert caught.value.details["dollars"] > 0.000001
    with pytest.raises(WriterTooExpensive, match="no price is known for claude-unheard-of"):
        await make_writer(settings(url, writer_max_dollars=5, writer_model="claude-unheard-of"), CONFIG).begin(KEPT)
    assert claude.calls["ask"] == claude.calls["create"] == 0


async def test_half_the_items_errored_are_asked_again_and_no_other(
    claude: ClaudeServer, writer: QuestionWriter
) -> None:
    half = lambda name, asked: "errored" if asked == 0 and int(name.split("-")[1]) % 2 else "succeeded"  # noqa: E731
    claude.outcome = half
    state = await finish(writer, await writer.begin(KEPT), KEPT)
    written = await writer.collect(state, KEPT)
    assert state.progress == (len(state.items), len(state.items))
    assert claude.created == 2
    assert set(claude.paid.values()) == {1}
    assert max(claude.asked.values()) == 2
    assert len(claude.asked) == len(state.items) - 1
    assert not [each for each in written.dropped if each.reason.startswith("request")]


@pytest.mark.parametrize("outcome", ["expired", "malformed", "damaged_line", "errored"])
async def test_an_item_that_never_succeeds_is_given_up_after_so_many_rounds(
    claude: ClaudeServer, url: str, outcome: str
) -> None:
    claude.outcome = lambda name, asked: outcome if name.endswith("0001-open") else "succeeded"  # type: ignore[return-value]
    writer = make_writer(settings(url, writer_rounds=2), CONFIG)
    state = await finish(writer, await writer.begin(KEPT), KEPT)
    (lost,) = [item for item in state.items.values() if item.outcome == "given_up"]
    assert lost.attempts == claude.created == 2
    written = await writer.collect(state, KEPT)
    reasons = {each.reason: each.count for each in written.dropped}
    names = {"expired": "expired", "malformed": "not_json", "damaged_line": "damaged_result", "errored": "api_error"}
    assert reasons[f"request_{names[outcome]}"] == 1
    assert len([item for item in state.items.values() if item.outcome == "done"]) == len(state.items) - 1


async def test_what_is_wrong_with_a_request_itself_is_not_asked_again(
    claude: ClaudeServer, writer: QuestionWriter
) -> None:
    claude.outcome = lambda name, asked: "refused" if name.endswith("0001-open") else "succeeded"
    state = await finish(writer, await writer.begin(KEPT), KEPT)
    assert claude.created == 1
    assert [item.reason for item in state.items.values() if item.outcome == "given_up"] == ["invalid_request_error"]


async def test_a_malformed_answer_is_paid_for_and_counted(claude: ClaudeServer, writer: QuestionWriter) -> None:
    claude.outcome = lambda name, asked: "malformed" if asked == 0 else "succeeded"
    state = await finish(writer, await writer.begin(KEPT), KEPT)
    written = await writer.collect(state, KEPT)
    assert written.cost.usage.requests == 1 + 2 * (len(state.items) - 1)


async def test_a_batch_that_expired_whole_is_submitted_again(claude: ClaudeServer, writer: QuestionWriter) -> None:
    claude.outcome = lambda name, asked: "expired" if asked == 0 else "succeeded"
    state = await finish(writer, await writer.begin(KEPT), KEPT)
    assert claude.created == 2
    assert not state.named("given_up")
    assert set(claude.paid.values()) == {1}


async def test_too_few_useful_answers_fail_with_the_reasons(claude: ClaudeServer, writer: QuestionWriter) -> None:
    claude.outcome = lambda name, asked: "errored"
    state = await finish(writer, await writer.begin(KEPT), KEPT)
    with pytest.raises(WriterFailed, match=r"1 of \d+ requests were answered usefully.*request_api_error") as caught:
        await writer.collect(state, KEPT)
    assert caught.value.details["useful"] == 1


async def test_a_batch_that_somebody_canceled_is_not_submitted_again(
    claude: ClaudeServer, writer: QuestionWriter
) -> None:
    claude.outcome = lambda name, asked: "canceled" if "open" in name else "succeeded"
    state = await finish(writer, await writer.begin(KEPT), KEPT)
    assert claude.created == 1
    assert {item.reason for item in state.items.values() if item.outcome == "given_up"} == {"canceled"}
    assert (await writer.collect(state, KEPT)).examples


async def test_a_batch_that_was_deleted_under_it_is_submitted_again(
    claude: ClaudeServer, writer: QuestionWriter
) -> None:
    state = await writer.begin(KEPT)
    while state.phase != "running":
        state = again(await writer.poll(state, KEPT))
    claude.batches.clear()
    state = await finish(writer, state, KEPT)
    assert claude.created == 2
    assert not state.named("given_up")


@pytest.mark.parametrize(
    "failure",
    [
        Failure(status=429, kind="rate_limit_error", headers={"retry-after": "0"}),
        Failure(status=529, kind="overloaded_error"),
    ],
    ids=["429 with retry-after", "529"],
)
async def test_a_submission_that_was_not_taken_is_tried_again(
    claude: ClaudeServer, writer: QuestionWriter, failure: Failure
) -> None:
    claude.fail("create", failure, failure)
    state = await finish(writer, await writer.begin(KEPT), KEPT)
    assert claude.calls["create"] == 3
    assert claude.created == 1
    assert state.written


@pytest.mark.parametrize(
    "failure", [Failure(status=500, after=True), Failure(cut=True, after=True)], ids=["500", "cut connection"]
)
async def test_a_submission_of_unknown_fate_is_looked_for_and_not_repeated(
    claude: ClaudeServer, writer: QuestionWriter, failure: Failure
) -> None:
    claude.fail("create", failure)
    state = await finish(writer, await writer.begin(KEPT), KEPT)
    assert claude.created == 1
    assert set(claude.paid.values()) == {1}
    assert state.batches == ("msgbatch_001",)


async def test_a_submission_that_was_lost_is_repeated(claude: ClaudeServer, writer: QuestionWriter) -> None:
    claude.fail("create", Failure(status=500), Failure(cut=True))
    state = await finish(writer, await writer.begin(KEPT), KEPT)
    assert claude.created == 1
    assert state.written


async def test_a_process_killed_after_submitting_finds_its_batch_again(
    claude: ClaudeServer, writer: QuestionWriter
) -> None:
    state = await writer.poll(await writer.begin(KEPT), KEPT)
    assert state.phase == "submitting"
    await writer.poll(state, KEPT)  # submitted, and killed before the state was kept
    state = await finish(writer, again(state), KEPT)
    assert claude.created == 1
    assert set(claude.paid.values()) == {1}


async def test_another_users_batch_of_the_same_size_is_not_taken_for_ones_own(claude: ClaudeServer, url: str) -> None:
    others, kept = conversations(24, secret=" and more"), KEPT
    first = make_writer(settings(url), CONFIG)
    done = await finish(first, await first.begin(others), others)
    second = make_writer(settings(url), CONFIG)
    state = await finish(second, await second.begin(kept), kept)
    assert len(state.items) == len(done.items)
    assert state.batches == ("msgbatch_002",)
    assert await second.collect(state, kept)


async def test_the_work_of_another_key_is_not_ones_own(claude: ClaudeServer, url: str) -> None:
    one, two = (make_writer(settings(url), CONFIG, key=key) for key in ("job-1", "job-2"))
    first = await one.begin(KEPT)
    with pytest.raises(WriterStale):
        await two.poll(first, KEPT)
    assert set(first.items).isdisjoint((await two.begin(KEPT)).items)


async def test_a_begin_that_is_repeated_does_not_buy_its_sample_again(
    claude: ClaudeServer, url: str, tmp_path: Path
) -> None:
    for _ in range(2):
        writer = make_writer(settings(url), CONFIG, spool=DirectorySpool(tmp_path / "spool"))
        state = await writer.begin(KEPT)
    assert claude.paid["at once"] == 1
    assert state.spent.usage.requests == 1


async def test_answers_that_a_spool_has_lost_are_read_from_their_batches_again(claude: ClaudeServer, url: str) -> None:
    here = make_writer(settings(url), CONFIG, spool=MemorySpool())
    state = await finish(here, await here.begin(KEPT), KEPT)
    expected = await here.collect(state, KEPT)
    there = make_writer(settings(url), CONFIG, spool=MemorySpool())
    found = await there.collect(again(state), KEPT)
    assert {each.reason: each.count for each in found.dropped} == {"request_lost": 1}  # the sample is in no batch
    assert set(found.examples) < set(expected.examples)
    assert sum(claude.paid.values()) == len(state.items)


@pytest.mark.parametrize("lines", [0, 3])
async def test_results_that_are_cut_off_are_read_again(
    claude: ClaudeServer, writer: QuestionWriter, lines: int
) -> None:
    state = await writer.begin(KEPT)
    while state.phase != "running":
        state = await writer.poll(state, KEPT)
    await writer.poll(state, KEPT)
    claude.cut_results_after = lines
    with pytest.raises(WriterUnavailable, match="cut off"):
        await writer.poll(state, KEPT)
    state = await finish(writer, state, KEPT)
    assert claude.created == 1
    assert not state.named("given_up")


async def test_results_without_all_their_lines_are_not_taken_for_whole(
    claude: ClaudeServer, writer: QuestionWriter
) -> None:
    claude.outcome = lambda name, asked: "missing" if name.endswith("0001-open") else "succeeded"
    state = await writer.begin(KEPT)
    with pytest.raises(WriterUnavailable, match=r"\d+ lines of \d+"):
        await finish(writer, state, KEPT)


async def test_results_are_deleted_after_use(claude: ClaudeServer, url: str, tmp_path: Path) -> None:
    claude.outcome = lambda name, asked: "expired" if asked == 0 and "open" in name else "succeeded"
    writer = make_writer(settings(url), CONFIG, spool=DirectorySpool(tmp_path / "spool"))
    state = await finish(writer, await writer.begin(KEPT), KEPT)
    state = again(await writer.discard(state))
    assert state.discarded
    assert claude.deleted == ["msgbatch_001", "msgbatch_002"]
    assert not claude.batches
    assert not (tmp_path / "spool").exists()
    assert (await writer.discard(state)).discarded


async def test_giving_up_cancels_what_runs_and_deletes_it_once_it_has_ended(
    claude: ClaudeServer, writer: QuestionWriter
) -> None:
    claude.looks = 3
    state = await writer.begin(KEPT)
    while state.phase != "running":
        state = await writer.poll(state, KEPT)
    for _ in range(8):
        state = again(await writer.discard(state))
        if state.discarded:
            break
    assert state.discarded
    assert claude.canceled == claude.deleted == ["msgbatch_001"]


async def test_giving_up_while_submitting_finds_what_was_submitted(
    claude: ClaudeServer, writer: QuestionWriter
) -> None:
    state = await writer.poll(await writer.begin(KEPT), KEPT)
    submitted = await writer.poll(state, KEPT)
    claude.end(claude.batches[submitted.batch or ""])
    assert (await writer.discard(state)).discarded
    assert not claude.batches


async def test_giving_up_while_submitting_waits_for_a_batch_that_may_be_its_own(
    claude: ClaudeServer, writer: QuestionWriter
) -> None:
    claude.looks = 1_000_000
    state = await writer.poll(await writer.begin(KEPT), KEPT)
    await writer.poll(state, KEPT)  # and nobody heard the answer
    waiting = again(await writer.discard(state))
    assert (waiting.phase, waiting.wait_seconds > 0) == ("submitting", True)
    for batch in claude.batches.values():
        claude.end(batch)
    assert (await writer.discard(waiting)).discarded
    assert not claude.batches


@pytest.mark.parametrize("hours", [-0.2, 3])
async def test_a_batch_is_found_again_however_late_it_was_submitted_and_whatever_the_clock_says(
    claude: ClaudeServer, writer: QuestionWriter, hours: float
) -> None:
    """The service was away for hours after the intent was kept, or the clock that it was kept by is ahead."""
    state = await writer.poll(await writer.begin(KEPT), KEPT)
    assert state.intent_at is not None
    state = replace(state, intent_at=state.intent_at - hours * 3600)
    await writer.poll(state, KEPT)
    await finish(writer, state, KEPT)
    assert claude.created == 1


async def test_other_transcripts_are_not_asked_about_with_an_older_state(
    claude: ClaudeServer, writer: QuestionWriter
) -> None:
    state = await writer.begin(KEPT)
    with pytest.raises(WriterStale, match="have changed"):
        await writer.poll(state, KEPT[:-1])
    with pytest.raises(WriterStale, match="have changed"):
        await writer.collect(state, KEPT[1:])


@pytest.mark.parametrize(("status", "kind"), [(401, "authentication_error"), (403, "permission_error")])
async def test_a_wrong_key_is_refused_at_once(
    claude: ClaudeServer, writer: QuestionWriter, status: int, kind: str
) -> None:
    claude.fail("count", *[Failure(status=status, kind=kind)] * 20)
    with pytest.raises(WriterRefused, match="LORRY_WRITER_API_KEY"):
        await writer.begin(KEPT)
    assert claude.calls["ask"] == 0


async def test_no_key_is_refused_by_name(url: str) -> None:
    with pytest.raises(WriterRefused, match="LORRY_WRITER_API_KEY"):
        await make_writer(settings(url, writer_api_key=None), CONFIG).begin(KEPT)


async def test_an_unknown_model_is_refused_before_anything_is_submitted(
    claude: ClaudeServer, writer: QuestionWriter
) -> None:
    claude.fail("ask", Failure(status=404, kind="not_found_error"))
    with pytest.raises(WriterRefused, match="404 not_found_error"):
        await writer.begin(KEPT)
    assert claude.created == 0


async def test_a_sample_that_is_answered_uselessly_three_times_stops_everything(
    claude: ClaudeServer, writer: QuestionWriter
) -> None:
    claude.answer = lambda params: json.dumps({"pairs": []})
    with pytest.raises(WriterFailed, match="nothing else was asked"):
        await writer.begin(KEPT)
    assert (claude.calls["ask"], claude.created) == (3, 0)


async def test_a_refused_sample_is_followed_by_another(claude: ClaudeServer, writer: QuestionWriter) -> None:
    good, calls = claude.answer, []

    def answer(params: dict) -> str:  # type: ignore[type-arg]
        calls.append(params)
        claude.stop_reason = "refusal" if len(calls) == 1 else "end_turn"
        return "I would rather not." if len(calls) == 1 else good(params)

    claude.answer = answer
    state = await writer.begin(KEPT)
    assert [state.items[name].outcome for name in list(state.items)[:2]] == ["given_up", "done"]
    assert next(iter(state.items.values())).reason == "refused"


async def test_a_service_that_does_not_answer_is_tried_so_often_and_then_left_for_later(
    claude: ClaudeServer, url: str
) -> None:
    writer = make_writer(settings(url, writer_attempts=3), CONFIG)
    claude.fail("ask", *[Failure(status=500)] * 3)
    with pytest.raises(WriterUnavailable, match="500"):
        await writer.begin(KEPT)
    assert claude.calls["ask"] == 3


async def test_a_long_pause_that_the_service_asks_for_is_left_to_the_caller(
    claude: ClaudeServer, writer: QuestionWriter
) -> None:
    claude.fail("ask", Failure(status=429, kind="rate_limit_error", headers={"retry-after": "3600"}))
    started = time.monotonic()
    with pytest.raises(WriterUnavailable) as caught:
        await writer.begin(KEPT)
    assert time.monotonic() - started < 30
    assert caught.value.details["retry_after_seconds"] == 3600


async def test_nobody_there_is_unavailable() -> None:
    writer = make_writer(settings("http://127.0.0.1:9", writer_attempts=2), CONFIG)
    with pytest.raises(WriterUnavailable, match=r"Claude at 127\.0\.0\.1:9 does not answer"):
        await writer.begin(KEPT)


async def test_no_secret_leaves_the_machine(claude: ClaudeServer, url: str) -> None:
    secret = " write to ada.lovelace@example.org now"
    kept = conversations(secret=secret)
    writer = make_writer(settings(url), CONFIG, redactor=Redactor())
    await writer.estimate(kept)
    written = await writer.collect(await finish(writer, await writer.begin(kept), kept), kept)
    assert "ada.lovelace" not in json.dumps(claude.sent)
    assert "[redacted email]" in json.dumps(claude.sent)
    assert {example.transcript_id for example in written.examples} <= {transcript.id for transcript in kept}


async def test_a_state_holds_no_word_of_anybodys(claude: ClaudeServer, writer: QuestionWriter) -> None:
    state = await finish(writer, await writer.begin(KEPT), KEPT)
    stored = json.dumps(state.to_json())
    words = {word for one in KEPT for turn in one.turns for word in turn.text.split() if len(word) > 4}
    assert not {word for word in words if word in stored}


async def test_what_was_written_survives_its_json_form(writer: QuestionWriter) -> None:
    written = await writer.collect(await finish(writer, await writer.begin(KEPT), KEPT), KEPT)
    assert Written.from_json(json.loads(json.dumps(written.to_json()))) == written
    assert written.writer == "claude/1:claude-haiku-5-5"


async def test_a_service_that_does_not_count_tokens_has_them_reckoned(
    claude: ClaudeServer, writer: QuestionWriter
) -> None:
    exact = await writer.estimate(KEPT)
    claude.fail("count", *[Failure(status=404, kind="not_found_error")] * 8)
    rough = await writer.estimate(KEPT)
    assert rough.usage.prompt_tokens == pytest.approx(exact.usage.prompt_tokens, rel=0.5)
