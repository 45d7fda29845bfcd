"""Removing uploads behind the back of requests, when it goes wrong in a way that nobody foresaw."""

from __future__ import annotations

from kit.background import FAILURES
from kit.settings import StorageSettings
from kit.storage import ObjectStorage
from registry.publishing.cleaner import Cleaner
from tests.support.waiting import until


async def test_a_removal_that_breaks_is_heard_of_and_the_next_ones_are_done(
    storage: ObjectStorage, storage_settings: StorageSettings
) -> None:
    await storage.put("one", b"1")
    closed = ObjectStorage(storage_settings)
    closed.close()  # refuses with what is no answer of a store's
    cleaner, before = Cleaner(closed), FAILURES.labels("registry", "broken")._value.get()
    cleaner.remove(["lost"])
    await until(lambda: FAILURES.labels("registry", "broken")._value.get() > before)
    assert FAILURES.labels("registry", "broken")._value.get() == before + 1
    cleaner._storage = storage
    cleaner.remove(["one"])
    await cleaner.close()
    assert await storage.list("") == []
