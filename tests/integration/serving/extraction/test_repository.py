"""Profiles in a real PostgreSQL."""

from __future__ import annotations

import pytest

from kit.database import Database
from kit.errors import InvalidName
from serving.extraction.profile import compare_profiles
from serving.extraction.repository import ProfileRepository
from tests.support.profiles import a_statement, profile_of


async def test_the_profile_kept_last_is_the_one_that_is_read(database: Database) -> None:
    async with database.transaction() as session:
        repository = ProfileRepository(session)
        assert await repository.latest("t", "ann") is None
        await repository.add("t", profile_of(version=2))
        await repository.add("t", profile_of(version=1))
    async with database.transaction() as session:
        assert await ProfileRepository(session).latest("t", "ann") == profile_of(version=1)


async def test_a_profile_is_kept_with_its_difference_from_the_one_before(database: Database) -> None:
    older, newer = profile_of(a_statement("I love tea")), profile_of(a_statement("I love jazz"))
    difference = compare_profiles(older, newer)
    async with database.transaction() as session:
        repository = ProfileRepository(session)
        await repository.add("t", older)
        assert await repository.latest_difference("t", "ann") is None
        await repository.add("t", newer, difference=difference)
        assert await repository.latest_difference("t", "ann") == difference


async def test_profiles_of_other_tenants_and_users_are_neither_seen_nor_erased(database: Database) -> None:
    async with database.transaction() as session:
        repository = ProfileRepository(session)
        await repository.add("t", profile_of())
        await repository.add("t", profile_of())
        await repository.add("t", profile_of(user="bob"))
        assert await repository.latest("u", "ann") is None
        assert await repository.latest("t", "eve") is None
        assert await repository.erase("u", "ann") == 0
        assert await repository.erase("t", "ann") == 2
        assert await repository.latest("t", "ann") is None
        assert await repository.latest("t", "bob") is not None


async def test_of_a_user_who_is_extracted_again_and_again_the_last_profiles_are_kept(database: Database) -> None:
    async with database.transaction() as session:
        repository = ProfileRepository(session)
        await repository.add("t", profile_of(user="bob"))
        for number in range(1, 15):
            await repository.add("t", profile_of(version=number))
        assert await repository.count("t", "ann") == 10
        assert await repository.latest("t", "ann") == profile_of(version=14)
        assert await repository.count("t", "bob") == 1


async def test_what_is_no_name_is_refused(database: Database) -> None:
    async with database.transaction() as session:
        repository = ProfileRepository(session)
        for call in (repository.latest, repository.latest_difference, repository.erase):
            with pytest.raises(InvalidName):
                await call("t", "a/b")
        with pytest.raises(InvalidName):
            await repository.add("a/b", profile_of())
