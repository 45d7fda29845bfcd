"""Profiles in a real PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from kit.database import Database
from kit.errors import InvalidName
from serving.extraction.profile import AdapterVersion, Asked, BankVersion, Profile, TopicSection
from serving.extraction.repository import ProfileRepository


def a_profile(user: str = "ann", *, version: int = 1) -> Profile:
    values: dict[str, Any] = {
        "user": user,
        "adapter": AdapterVersion(version=version, version_id=f"v{version:032d}"),
        "bank": BankVersion(name="test", version="1"),
        "generated_at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "asked": Asked(questions=0, samples=0, unusable_answers=0, unsupported_claims=0),
        "topics": (TopicSection(topic="x", title="Ünïcode ☂", not_stated=True),),
    }
    return Profile(**values)


async def test_the_profile_kept_last_is_the_one_that_is_read(database: Database) -> None:
    async with database.transaction() as session:
        repository = ProfileRepository(session)
        assert await repository.latest("t", "ann") is None
        await repository.add("t", a_profile(version=2))
        await repository.add("t", a_profile(version=1))
    async with database.transaction() as session:
        assert await ProfileRepository(session).latest("t", "ann") == a_profile(version=1)


async def test_profiles_of_other_tenants_and_users_are_not_seen(database: Database) -> None:
    async with database.transaction() as session:
        repository = ProfileRepository(session)
        await repository.add("t", a_profile("ann"))
        assert await repository.latest("u", "ann") is None
        assert await repository.latest("t", "bob") is None


async def test_what_is_no_name_is_refused(database: Database) -> None:
    async with database.transaction() as session:
        repository = ProfileRepository(session)
        with pytest.raises(InvalidName):
            await repository.add("a/b", a_profile())
        with pytest.raises(InvalidName):
            await repository.latest("t", "a/b")
