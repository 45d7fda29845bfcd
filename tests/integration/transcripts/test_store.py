"""The store on a real PostgreSQL: all or none, idempotent, as it was, and never another user's."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import func, select

from kit.database import Base, Database
from kit.errors import InvalidName
from transcripts.errors import NoUserTurn, TranscriptNotFound, TranscriptRefused, TranscriptUnreadable
from transcripts.importer import read_transcripts
from transcripts.models import TranscriptRow, TurnRow
from transcripts.store import Added, TranscriptStore
from transcripts.transcript import Role, Transcript, Turn

NOON = datetime(2024, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)


def talk(*texts: str, at: datetime | None = NOON, title: str = "") -> Transcript:
    roles: tuple[Role, Role] = ("user", "other")
    turns = tuple(
        Turn(role=roles[n % 2], text=text, time=at + timedelta(seconds=n) if at else None)
        for n, text in enumerate(texts)
    )
    return Transcript(turns=turns, source_format="plain-text", title=title)


async def rows(database: Database) -> tuple[int, int]:
    async with database.transaction() as session:
        counted = [
            (await session.execute(select(func.count()).select_from(t))).scalar_one() for t in (TranscriptRow, TurnRow)
        ]
    return counted[0], counted[1]


async def test_what_was_added_is_read_back_as_it_was(database: Database) -> None:
    given = [
        talk("Ünïcode 🐝 'quotes' \\ %s :x", "ok", title="Bees"),
        talk("no time", "line\nbreak\ttab", at=None),
        talk("earlier", at=NOON - timedelta(days=1)),
    ]
    async with database.transaction() as session:
        assert await TranscriptStore(session).add("default", "ann", given) == Added(new=3, known=0)
    async with database.transaction() as session:
        store = TranscriptStore(session)
        found = await store.list("default", "ann")
        assert found == [given[2], given[0], given[1]]
        assert [t.id for t in found] == [given[2].id, given[0].id, given[1].id]
        assert [(t.title, t.source_format) for t in found][1] == ("Bees", "plain-text")
        assert await store.get("default", "ann", given[0].id) == given[0]


async def test_adding_again_changes_nothing(database: Database) -> None:
    given = [talk("a", "b"), talk("c"), talk("a", "b")]
    for expected in (Added(new=2, known=1), Added(new=0, known=3)):
        async with database.transaction() as session:
            assert await TranscriptStore(session).add("default", "ann", given) == expected
        assert await rows(database) == (2, 3)
    async with database.transaction() as session:
        more = Added(new=1, known=2)
        assert await TranscriptStore(session).add("default", "ann", [*given[:2], talk("d")]) == more


async def test_the_order_does_not_depend_on_the_order_of_adding(database: Database) -> None:
    given = [talk(f"turn {n}", at=None if n % 3 else NOON) for n in range(30)]
    for user, order in (("ann", given), ("bob", given[::-1])):
        async with database.transaction() as session:
            await TranscriptStore(session).add("default", user, order)
    async with database.transaction() as session:
        store = TranscriptStore(session)
        ann, bob = await store.list("default", "ann"), await store.list("default", "bob")
    assert ann == bob
    assert ann == sorted(given, key=lambda t: (t.started_at is None, t.id))


async def test_many_transcripts_are_read_in_pages_without_loss(database: Database) -> None:
    times = [None, NOON, NOON + timedelta(seconds=1)]
    given = [talk(f"turn {n}", at=times[n % 3]) for n in range(620)]
    async with database.transaction() as session:
        assert await TranscriptStore(session).add("default", "ann", iter(given)) == Added(new=620, known=0)
    async with database.transaction() as session:
        found = await TranscriptStore(session).list("default", "ann")
    far = NOON + timedelta(days=1)
    assert found == sorted(given, key=lambda t: (t.started_at or far, t.id))


async def test_a_fault_in_the_last_line_of_a_file_keeps_nothing_of_it(database: Database, tmp_path: Path) -> None:
    path = tmp_path / "chat.jsonl"
    line = '{{"messages": [{{"role": "user", "content": "I am number {}"}}]}}\n'
    path.write_text("".join(line.format(n) for n in range(520)) + '{"messages": [')
    with pytest.raises(TranscriptRefused, match="line 521"):
        async with database.transaction() as session:
            await TranscriptStore(session).add("default", "ann", read_transcripts(path))
    assert await rows(database) == (0, 0)
    path.write_text("".join(line.format(n) for n in range(520)))
    async with database.transaction() as session:
        added = await TranscriptStore(session).add("default", "ann", read_transcripts(path))
    assert added == Added(new=520, known=0)


async def test_an_import_holds_one_batch_in_memory(database: Database, tmp_path: Path) -> None:
    path = tmp_path / "chat.jsonl"
    with path.open("w") as file:
        for n in range(60):
            words = f"{n:*>99} " * 4_200  # few of them: it is bytes that are counted here
            file.write(json.dumps({"messages": [{"role": "user", "content": words}]}) + "\n")
    size_bytes = path.stat().st_size
    assert size_bytes > 24_000_000
    tracemalloc.start()
    try:
        async with database.transaction() as session:
            await TranscriptStore(session).add("default", "ann", read_transcripts(path))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < size_bytes * 0.75
    assert await rows(database) == (60, 60)


async def test_two_imports_at_once_store_everything_once(database: Database) -> None:
    given = [talk(f"turn {n}") for n in range(520)]

    async def add(transcripts: list[Transcript]) -> Added:
        async with database.transaction() as session:
            return await TranscriptStore(session).add("default", "ann", transcripts)

    done = await asyncio.gather(add(given), add(given[::-1]), add(given[300:] + given[:300]))
    assert sum(added.new for added in done) == 520
    assert await rows(database) == (520, 520)


@pytest.mark.parametrize(
    ("bad", "error", "field"),
    [
        (Transcript(turns=(Turn(role="other", text="x"),), source_format="f"), NoUserTurn, "transcripts[1]"),
        (Transcript(turns=(), source_format="f"), NoUserTurn, "transcripts[1]"),
        (talk("ok", "nul \0"), TranscriptUnreadable, "transcripts[1].turns[1].text"),
        (talk("half \ud83d"), TranscriptUnreadable, "transcripts[1].turns[0].text"),
        (talk("ok", title="\0"), TranscriptUnreadable, "transcripts[1].title"),
        (
            Transcript(turns=(Turn(role="user", text="a"), Turn(role="bot", text="b")), source_format="f"),  # type: ignore[arg-type]
            TranscriptUnreadable,
            "transcripts[1].turns[1].role",
        ),
    ],
)
async def test_a_transcript_that_cannot_be_kept_is_refused_with_all_the_others(
    database: Database, bad: Transcript, error: type[TranscriptRefused], field: str
) -> None:
    with pytest.raises(error) as caught:
        async with database.transaction() as session:
            await TranscriptStore(session).add("default", "ann", [talk("good"), bad])
    assert caught.value.field == field
    assert await rows(database) == (0, 0)


@pytest.mark.parametrize(("tenant", "user"), [("default", "a/b"), ("..", "ann"), ("", "ann"), ("default", "é")])
async def test_a_bad_name_is_refused(database: Database, tenant: str, user: str) -> None:
    async with database.transaction() as session:
        store = TranscriptStore(session)
        with pytest.raises(InvalidName):
            await store.add(tenant, user, [talk("a")])
        with pytest.raises(InvalidName):
            await store.list(tenant, user)


async def test_users_and_tenants_see_only_their_own(database: Database) -> None:
    shared = talk("the same words", "said by both")
    owners = [("default", "ann"), ("default", "bob"), ("other", "ann")]
    for tenant, user in owners:
        async with database.transaction() as session:
            store = TranscriptStore(session)
            assert await store.add(tenant, user, [shared, talk(f"{tenant} {user}")]) == Added(new=2, known=0)
    async with database.transaction() as session:
        store = TranscriptStore(session)
        assert await store.users("default") == ["ann", "bob"]
        assert await store.users("other") == ["ann"]
        assert await store.users("nobody") == []
        assert await store.delete("default", "ann") == 2
        assert await store.list("default", "ann") == []
        with pytest.raises(TranscriptNotFound):
            await store.get("default", "ann", shared.id)
        for tenant, user in owners[1:]:
            assert set(await store.list(tenant, user)) == {shared, talk(f"{tenant} {user}")}
    assert await rows(database) == (4, 6)


async def test_a_summary_counts_what_is_kept(database: Database) -> None:
    async with database.transaction() as session:
        store = TranscriptStore(session)
        await store.add("default", "ann", [talk("three words here", "ignored"), talk("two words", at=None)])
        await store.add("default", "bob", [talk("other")])
        summary = await store.summary("default", "ann")
        nobody = await store.summary("default", "nobody")
    assert (summary.transcripts, summary.turns, summary.user_turns, summary.user_words) == (2, 3, 2, 5)
    assert summary.first_started_at == summary.last_started_at == NOON
    assert summary.last_imported_at is not None
    assert (nobody.transcripts, nobody.user_words, nobody.last_imported_at) == (0, 0, None)


async def test_one_transcript_is_deleted_with_its_turns(database: Database) -> None:
    first, second = talk("a", "b"), talk("c")
    async with database.transaction() as session:
        store = TranscriptStore(session)
        await store.add("default", "ann", [first, second])
        assert await store.delete("default", "ann", first.id) == 1
        assert await store.list("default", "ann") == [second]
        with pytest.raises(TranscriptNotFound):
            await store.delete("default", "ann", first.id)
        assert await store.delete("default", "nobody") == 0
    assert await rows(database) == (1, 1)


def _ours(tables: set[str], differences: list[object]) -> Iterator[object]:
    for difference in differences:
        if any(table in repr(difference) for table in tables):
            yield difference


async def test_the_migration_makes_the_tables_that_the_models_describe(database: Database) -> None:
    async with database.engine.connect() as connection:
        differences = await connection.run_sync(
            lambda sync: compare_metadata(MigrationContext.configure(sync), Base.metadata)
        )
    assert list(_ours({"'transcript'", "'turn'"}, differences)) == []


async def test_of_very_much_only_the_newest_is_read_and_what_is_read_is_whole(database: Database) -> None:
    day = timedelta(days=1)
    given = [talk("ü" * 500, at=NOON - number * day, title=str(number)) for number in range(5)]
    given[2] = talk("x" * 900, "y" * 600, at=NOON - 2 * day, title="2")
    timeless = talk("z", at=None, title="timeless")
    async with database.transaction() as session:
        await TranscriptStore(session).add("default", "ann", [*given, timeless])
        await TranscriptStore(session).add("default", "bob", [talk("hello")])
    async with database.reading() as session:
        store = TranscriptStore(session)
        assert await store.recent("default", "ann", most_bytes=1 << 20) == await store.list("default", "ann")
        found = await store.recent("default", "ann", most_bytes=3001)
        assert [transcript.title for transcript in found] == ["3", "1", "0", "timeless"]
        assert [transcript.id for transcript in found] == [given[3].id, given[1].id, given[0].id, timeless.id]
        assert await store.recent("default", "ann", most_bytes=0) == []
        assert await store.recent("default", "cy", most_bytes=1 << 20) == []
