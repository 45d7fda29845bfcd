"""What is stored of a conversation in several states counts once, in whatever order it came and whatever went."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from kit.database import Database
from kit.settings import DatabaseSettings
from lorry.marking import Marking
from lorry.schema import migrate
from tests.support.migrations import downgrade
from tests.support.nursery import Nursery
from tests.support.waiting import until
from training.jobs.job import Submission
from training.jobs.jobs import Jobs
from training.jobs.record.repository import RecordRepository
from training.jobs.repository import JobRepository
from training.jobs.states import Stage, State
from training.jobs.triggers.repository import TrainedRepository
from transcripts.continuation import without_continued
from transcripts.repository import Summary
from transcripts.search import search_user_turns
from transcripts.store import Added, TranscriptStore
from transcripts.transcript import Role, Transcript, Turn

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SAID = ("I keep bees", "How many?", "Four hives in the orchard", "Since when?", "Since last spring")


def talk(*texts: str, timed: bool = False, source_format: str = "openai-messages") -> Transcript:
    roles: tuple[Role, Role] = ("user", "other")
    turns = tuple(
        Turn(role=roles[n % 2], text=text, time=NOON + timedelta(minutes=n) if timed else None)
        for n, text in enumerate(texts)
    )
    return Transcript(turns=turns, source_format=source_format)


async def add(database: Database, *transcripts: Transcript, user: str = "ann") -> Added:
    async with database.transaction() as session:
        return await TranscriptStore(session).add("default", user, transcripts)


async def delete(database: Database, transcript: Transcript) -> None:
    async with database.transaction() as session:
        await TranscriptStore(session).delete("default", "ann", transcript.id)


async def own_words(database: Database, user: str = "ann") -> int:
    async with database.reading() as session:
        return (await TranscriptStore(session).own_words("default")).get(user, 0)


async def summary(database: Database) -> Summary:
    async with database.reading() as session:
        return await TranscriptStore(session).summary("default", "ann")


async def last_states(database: Database) -> set[str]:
    async with database.reading() as session:
        return set(await TranscriptStore(session).last_states("default", "ann"))


async def found(database: Database, query: str) -> list[str]:
    async with database.reading() as session:
        return [each.transcript_id for each in await search_user_turns(session, "default", "ann", query)]


async def recent(database: Database) -> list[str]:
    async with database.reading() as session:
        return [each.id for each in await TranscriptStore(session).recent("default", "ann", most_bytes=10_000)]


def words(transcripts: Iterable[Transcript]) -> int:
    return sum(len(turn.text.split()) for transcript in transcripts for turn in transcript.user_turns)


async def test_what_was_said_in_several_states_is_found_once_and_read_once(database: Database) -> None:
    states = [talk(*SAID[:length]) for length in (1, 3, 5)]
    await add(database, *states)
    assert await found(database, "bees") == [states[2].id]
    assert await recent(database) == [states[2].id]
    await delete(database, states[2])
    assert await found(database, "bees") == [states[1].id]
    assert await recent(database) == [states[1].id]


@pytest.mark.parametrize("timed", [True, False])
@pytest.mark.parametrize("source_format", ["claude-code", "openai-messages"])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
async def test_of_a_conversation_that_went_on_the_last_state_counts(
    database: Database, order: tuple[int, ...], source_format: str, timed: bool
) -> None:
    states = [talk(*SAID[:length], timed=timed, source_format=source_format) for length in (1, 3, 5)]
    for index, which in enumerate(order):
        assert await add(database, states[which]) == Added(new=1, known=0)
        assert await own_words(database) == words([states[max(order[: index + 1])]])
    assert await add(database, *states) == Added(new=0, known=3)
    found = await summary(database)
    assert (found.user_words, found.user_turns) == (words(states[2:]), 3)
    assert (found.transcripts, found.turns) == (3, 1 + 3 + 5), "what is stored is there to be listed and deleted"
    assert await last_states(database) == {states[2].id}


async def test_all_states_in_one_import_count_once(database: Database) -> None:
    states = [talk(*(f"turn {n} of many" for n in range(length))) for length in range(1, 40)]
    await add(database, *states, talk("something else"))
    assert await own_words(database) == words([states[-1]]) + 2


async def test_a_state_counts_again_when_what_continued_it_is_deleted(database: Database) -> None:
    first, second, third = (talk(*SAID[:length]) for length in (1, 3, 5))
    await add(database, first, second, third)
    await delete(database, second)
    assert await own_words(database) == words([third]), "the third goes on from the first, too"
    await delete(database, third)
    assert await own_words(database) == words([first])
    await add(database, third)
    await add(database, second)
    await delete(database, third)
    assert await own_words(database) == words([second]), "of what the third continued, the second continues the first"
    await add(database, third)
    await delete(database, first)
    assert await own_words(database) == words([third])


async def test_a_branch_counts_beside_the_conversation_that_it_left(database: Database) -> None:
    one, other = talk(*SAID), talk(*SAID[:2], "Five by now")
    await add(database, one, talk(*SAID[:2]))
    await add(database, other)
    assert await own_words(database) == words([one, other])


async def test_a_part_of_a_resumed_session_counts_in_the_whole_one(database: Database) -> None:
    whole = talk(*SAID, timed=True, source_format="claude-code")
    first, rest = (Transcript(turns=turns, source_format="claude-code") for turns in (whole.turns[:2], whole.turns[2:]))
    await add(database, first, rest)
    assert await own_words(database) == words([whole])
    await add(database, whole)
    assert await own_words(database) == words([whole])
    await delete(database, whole)
    assert await own_words(database) == words([whole])
    assert await last_states(database) == {first.id, rest.id}


async def test_a_turn_that_grew_by_a_line_counts_once(database: Database) -> None:
    before, after = talk("one\ntwo", timed=True), talk("one\ntwo\nthree", timed=True)
    await add(database, after)
    await add(database, before, talk("one\nother", timed=True))
    assert await own_words(database) == 3 + 2


async def test_nobody_continues_what_somebody_else_said(database: Database) -> None:
    await add(database, talk(*SAID[:1]), user="bob")
    await add(database, talk(*SAID))
    assert await own_words(database, "bob") == words([talk(*SAID[:1])])


async def test_states_that_are_imported_at_once_count_once(database: Database) -> None:
    states = [talk(*(f"turn {n}" for n in range(length))) for length in range(1, 9)]
    Random(7).shuffle(states)
    await asyncio.gather(*(add(database, state) for state in states))
    assert await own_words(database) == 8
    last = max(states, key=lambda state: len(state.turns))
    await asyncio.gather(delete(database, last), add(database, talk("turn 0", "turn 1", "turn 2")))
    assert await own_words(database) == words(without_continued(each for each in states if each != last))


def _drawn(random: Random) -> Transcript:
    """A few of few messages, so that many stand in several transcripts."""
    texts = ["a", "b", "a\nb", "a\nb\na", "b\na"]
    times = [None, NOON, NOON + timedelta(minutes=1), NOON + timedelta(minutes=2)]
    turns = [
        Turn(role=random.choice(("user", "other")), text=random.choice(texts), time=random.choice(times))
        for _ in range(random.randint(0, 3))
    ]
    turns.insert(random.randint(0, len(turns)), Turn(role="user", text=random.choice(texts), time=random.choice(times)))
    return Transcript(turns=tuple(turns), source_format=random.choice(("claude-code", "chatgpt", "openai-messages")))


@pytest.mark.parametrize("seed", range(4))
async def test_what_counts_is_what_a_dataset_would_take(database: Database, seed: int) -> None:
    random = Random(seed)
    kept: dict[str, Transcript] = {}
    for _ in range(25):
        if kept and random.random() < 0.3:
            gone = kept.pop(random.choice(sorted(kept)))
            await delete(database, gone)
        else:
            drawn = [_drawn(random) for _ in range(random.randint(1, 8))]
            drawn += [
                Transcript(turns=each.turns[: random.randint(1, len(each.turns))], source_format=each.source_format)
                for each in drawn
            ]
            drawn = [each for each in drawn if each.user_turns]
            random.shuffle(drawn)
            await add(database, *drawn)
            kept = {each.id: each for each in reversed(drawn)} | kept  # of equal ones, the first format is kept
        left = without_continued(kept.values())
        assert await last_states(database) == {each.id for each in left}
        assert await own_words(database) == words(left)


async def forget_states(database: Database) -> None:
    """Have all that is stored be as an earlier release has stored it."""
    await downgrade(database, "0015_publishing")
    await migrate(database)


async def delete_as_before(database: Database, transcript: Transcript) -> None:
    """Delete as the release before does, which knows nothing of states and takes no lock."""
    async with database.transaction() as session:
        await session.execute(text("delete from transcript where id = :id"), {"id": transcript.id})


async def unmarked(database: Database) -> int:
    async with database.reading() as session:
        found = await session.execute(text("select count(*) from transcript where marks is null or sought is null"))
        return int(found.scalar_one())


async def remember(database: Database, user: str, *, words: int) -> None:
    trained = {"base": "b", "job_id": "j", "version_id": "v", "trained_at": datetime.now(UTC), "words": words}
    async with database.transaction() as session:
        await TrainedRepository(session).keep({"tenant": "default", "user_id": user, "adapter": "profile", **trained})


async def trained_words(database: Database) -> dict[str, int]:
    async with database.reading() as session:
        rows = await TrainedRepository(session).all(tenant="default", adapter="profile")
        return {user: row.words for user, row in rows.items()}


@pytest.mark.parametrize("at_once", [1, 50])
async def test_what_an_earlier_release_stored_counts_once_when_it_is_marked(database: Database, at_once: int) -> None:
    first, second = talk(*SAID[:3]), talk(*SAID)
    whole = words([second])
    for user in ("ann", "bob", "cid"):
        await add(database, *((first, second) if user != "cid" else (second,)), user=user)
    await add(database, first, user="dan")
    await remember(database, "ann", words=words([first, second]))
    await remember(database, "cid", words=whole)
    await remember(database, "dan", words=words([first]))
    await add(database, second, user="dan")  # since the training
    await forget_states(database)
    assert await unmarked(database) == 7, "whoever waits for the schema does not wait for that"
    assert await own_words(database, "bob") == words([first, second]), "as they did in that release"
    await asyncio.gather(*(Marking(database, transcripts_at_once=at_once).mark_all() for _ in range(2)))
    await Marking(database).mark_all()  # whom each of the two had left to the other
    for user in ("ann", "bob", "cid", "dan"):
        assert await own_words(database, user) == whole
    assert await unmarked(database) == 0
    assert await trained_words(database) == {"ann": whole, "cid": whole, "dan": words([first])}, (
        "and what was trained on is told in the same words"
    )
    await add(database, talk(*SAID, "Lovely.", "Two more words"))
    assert await own_words(database) == whole + 3


async def test_what_was_imported_since_the_upgrade_hides_no_words_that_had_counted_twice(database: Database) -> None:
    first, second, third = (talk(*SAID[:length]) for length in (1, 3, 5))
    await add(database, first, second)
    await remember(database, "ann", words=words([first, second]))
    await forget_states(database)
    await add(database, third)
    await Marking(database, transcripts_at_once=1).mark_all()
    assert await own_words(database) == words([third])
    assert await trained_words(database) == {"ann": words([second])}


@pytest.mark.parametrize("state", [State.QUEUED, State.FAILED])
async def test_what_a_job_has_counted_before_the_marking_is_counted_again(database: Database, state: State) -> None:
    first, second, third = (talk(*SAID[:length]) for length in (1, 3, 5))
    await add(database, first, second)
    job = await Jobs(database).submit(Submission(tenant="default", user="ann", base="b"))
    async with database.transaction() as session:
        result = {"transcript_ids": [first.id, second.id], "words": words([first, second]), "beginning": "x"}
        await RecordRepository(session).add_stage(job.id, Stage.SNAPSHOT, result=result, seconds=1.0)
        if state is State.FAILED:  # a retry goes on with that
            await JobRepository(session).update(job.id, {"state": state, "ended_at": datetime.now(UTC)})
    await add(database, third)
    await forget_states(database)
    await Marking(database).mark_all()
    async with database.reading() as session:
        found = await RecordRepository(session).result(job.id, Stage.SNAPSHOT)
    assert found == {**result, "words": words([second])}, "the third is for the next job"


async def test_a_user_whose_transcripts_somebody_holds_is_marked_the_next_time(database: Database) -> None:
    for user in ("ann", "bob"):
        await add(database, talk(*SAID[:1]), talk(*SAID), user=user)
    await forget_states(database)
    marking = Marking(database)
    async with database.transaction() as session:
        await TranscriptStore(session).hold("default", "ann")
        await marking.mark_all()
        assert await unmarked(database) == 2
        assert await own_words(database, "bob") == words([talk(*SAID)])
    await marking.mark_all()
    assert await unmarked(database) == 0


async def test_a_user_who_cannot_be_marked_keeps_nobody_else_from_it(database: Database) -> None:
    for user in ("ann", "bob"):
        await add(database, talk(*SAID[:1]), user=user)
    await forget_states(database)
    async with database.transaction() as session:
        await session.execute(text("alter table transcript add check (user_id <> 'ann' or sought is null)"))
    marking = Marking(database)
    with pytest.raises(SQLAlchemyError):
        await marking.mark_all()
    await marking.mark_all()
    assert await unmarked(database) == 1


async def test_the_process_that_conducts_erasures_marks(
    nursery: Nursery, database: Database, database_settings: DatabaseSettings, tmp_path: Path
) -> None:
    await add(database, talk(*SAID[:1]), talk(*SAID))
    await forget_states(database)
    environment = {
        "LORRY_DATABASE_URL": database_settings.database_url,
        "LORRY_REGISTRY_URL": "http://127.0.0.1:9",
        "LORRY_REGISTRY_TOKEN": "nobody's",
    }
    process = nursery.start("lorry.erasure", environment=environment, out=tmp_path / "log")

    async def is_done() -> bool:
        assert process.poll() is None, (tmp_path / "log").read_text()
        return await unmarked(database) == 0

    try:
        await until(is_done, within_seconds=120)
    finally:
        process.terminate()
        assert await asyncio.to_thread(process.wait) == 0


async def test_what_was_continued_by_what_an_earlier_release_deletes_counts_again(database: Database) -> None:
    first, second, third = (talk(*SAID[:length]) for length in (1, 3, 5))
    await add(database, first, second, third)
    await remember(database, "ann", words=words([third]))
    await delete_as_before(database, third)
    assert second.id in await last_states(database), "at once: else it would be hidden for ever"
    await Marking(database).mark_all()
    assert await last_states(database) == {second.id}
    assert await trained_words(database) == {"ann": words([third])}, "the first had never counted"
    await delete_as_before(database, first)
    assert (await last_states(database), await unmarked(database)) == ({second.id}, 0)


async def test_nothing_is_left_to_be_compared_by_what_this_release_deletes(database: Database) -> None:
    states = [talk(*SAID[:length]) for length in (1, 3, 5)]
    await add(database, *states)
    await delete(database, states[2])
    assert await unmarked(database) == 0


async def test_an_earlier_release_deletes_a_state_while_another_is_imported(database: Database) -> None:
    first, second = talk(*SAID[:3]), talk(*SAID)
    await add(database, second)
    async with database.transaction() as session:
        await TranscriptStore(session).add("default", "ann", [first])
        deleting = asyncio.create_task(delete_as_before(database, second))

        async def waits() -> bool:
            async with database.reading() as looking:
                query = (
                    "select exists (select from pg_locks where locktype = 'advisory' and not granted"
                    " and database = (select oid from pg_database where datname = current_database()))"
                )
                return bool((await looking.execute(text(query))).scalar_one())

        await until(waits)
    await deleting
    assert await last_states(database) == {first.id}
