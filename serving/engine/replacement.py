"""What is done when a step of the engine needed an adapter that was not in memory.

Leases make that impossible. Should it happen all the same, the engine lives on: the step computed with zeros, so its
requests must not be answered, and what it put into the prefix cache must never be found.
"""

from __future__ import annotations

import logging
from typing import Protocol

from kit.errors import LorryError
from serving.engine.pool.erasure import Erasure
from serving.engine.pool.observer import Reason
from serving.errors import AdapterLost

_log = logging.getLogger(__name__)


class Store(Protocol):
    """What names versions for the prefix cache."""

    def lost(self, version_id: str) -> None:
        """See to it that the version's blocks in the prefix cache are never used again."""


class Residents(Protocol):
    """What ends requests, and takes versions out of memory."""

    async def withdraw(self, version_id: str, reason: LorryError, *, because: Reason = "withheld") -> Erasure | None:
        """Give no lease of a version, end what runs on it, and take it out; then it may be loaded anew."""


async def replace_lost(version_id: str, *, store: Store, residents: Residents) -> None:
    """End the requests that ran without their weights, and have the version loaded anew under another path.

    Nobody is given a lease until it has left: those would be computed with zeros as well.
    """
    store.lost(version_id)
    _log.error("%s was lost in a step: its requests are ended, and it will be loaded anew", version_id)
    try:
        await residents.withdraw(version_id, AdapterLost(retry_after_seconds=1), because="lost")
    except Exception:  # the engine core sends every failure as a bare Exception
        _log.exception("%s was lost in a step, and could not be taken out", version_id)
