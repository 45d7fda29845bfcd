"""What is done when a step of the engine needed an adapter that was not in memory.

Leases make that impossible. Should it happen all the same, the engine lives on: the step computed with zeros, so its
requests must not be answered, and what it put into the prefix cache must never be found.
"""

from __future__ import annotations

import logging
from typing import Protocol

from kit.errors import LorryError
from serving.errors import AdapterNotLoaded

_log = logging.getLogger(__name__)


class Store(Protocol):
    """What names versions for the prefix cache."""

    def lost(self, version_id: str) -> None:
        """See to it that the version's blocks in the prefix cache are never used again."""


class Residents(Protocol):
    """What ends requests."""

    async def end(self, version_id: str, reason: LorryError) -> None:
        """End every request that runs on a version."""


class Pool(Protocol):
    """What loads versions."""

    async def reload(self, version_id: str) -> None:
        """Take a version out as soon as nobody uses it; the next request brings it anew."""


async def replace_lost(version_id: str, *, store: Store, residents: Residents, pool: Pool) -> None:
    """End the requests that ran without their weights, and have the version loaded anew under another path."""
    store.lost(version_id)
    await residents.end(version_id, AdapterNotLoaded("The engine lost the adapter; ask again."))
    await pool.reload(version_id)
    _log.error("%s was lost in a step: its requests were ended, and it will be loaded anew", version_id)
