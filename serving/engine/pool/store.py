"""What takes long, as the pool sees it: the registry, the disk, the workers."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

from serving.engine.pool.erasure import Removal
from serving.engine.urgency import Urgency


class Store(Protocol):
    """Where adapters come from and go to."""

    def at_hand(self, version_id: str) -> bool:
        """Say whether `install` needs nobody but this machine: to bring the version, or to say why it cannot be had."""

    async def install(self, version_id: str, *, urgent: Urgency) -> int:
        """See that the version can be had, and begin to fetch it; returns a guess of its bytes in host memory.

        Of one that was staged before, it is what that took.

        `stage` or `abandon` follows.

        Raises:
            LorryError: why it cannot be had.
        """

    async def stage(self, version_id: str, *, urgent: Urgency) -> int:
        """Bring an installed version into the workers' host memory, and let requests name it; returns its bytes there.

        Raises:
            LorryError: why it cannot be loaded.
        """

    def abandon(self, version_id: str) -> None:
        """Let go of what `install` began, if it began anything."""

    def drop(self, version_id: str) -> Awaitable[bool]:
        """Take a version out of the workers' memory and slots; from this call on no request can name it.

        What is returned ends when that is done, and goes on when nobody waits for it; it never raises. False = the
        workers keep the version, and it must be dropped again. A `stage` of the version waits for it.
        """

    async def erase(self, version_id: str) -> Removal:
        """Like `drop`; then overwrite it in memory and in every slot, and check that. Its files are the caller's.

        Raises:
            AdapterNotLoaded: when a request still uses it, or a slot still holds weights.
        """
