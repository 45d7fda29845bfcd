"""Taking a version out of this engine, everywhere it can be, and the receipts of that.

Memory first, then the files: what the engine still holds could be read back from nowhere else. The directory's orders
and operators both come by here.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

from kit.errors import LorryError
from serving.engine.ledger import LoadLedger
from serving.engine.pool.erasure import Erasure
from serving.engine.pool.observer import Reason

_log = logging.getLogger(__name__)
_RECEIPTS = 256

OrderedBy = Literal["registry", "operator"]
"""Whose order it was: the registry's, which every engine gets, or one that this engine alone was given."""


class Memory(Protocol):
    """Where requests run on a version."""

    async def withdraw(
        self,
        version_id: str,
        reason: LorryError,
        *,
        abort: bool = True,
        wait_seconds: float | None = None,
        because: Reason = "withheld",
    ) -> Erasure | None:
        """Take a version out of memory, overwriting it; its files may be deleted after that."""


class Disk(Protocol):
    """Where a version's files are."""

    async def remove(self, version_id: str, *, reason: Reason) -> int:
        """Delete a version's files, and count that; returns how many bytes they had."""


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What was done about one version on this engine.

    Attributes:
        version_id: what it was about.
        because: ``erased``, or ``withheld`` (its files stay).
        ordered_by: whose order it was.
        at: when it was done, UTC.
        memory: what the pool did; None when nothing could be in memory yet.
        disk_bytes: bytes of files deleted; 0 = there were none; None = the files stay.
    """

    version_id: str
    because: Reason
    ordered_by: OrderedBy
    at: datetime
    memory: Erasure | None
    disk_bytes: int | None

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        memory = None if self.memory is None else asdict(self.memory)
        if memory is not None:
            del memory["version_id"]
        return {**asdict(self), "at": self.at.isoformat(), "memory": memory}


class Eraser:
    """Does it, and keeps the last receipts."""

    def __init__(self, disk: Disk, *, ledger: LoadLedger, receipts: int = _RECEIPTS) -> None:
        """Delete files from `disk`; what is deleted is forgotten in `ledger` as well."""
        self._disk = disk
        self._ledger = ledger
        self._memory: Memory | None = None
        self._receipts: deque[Receipt] = deque(maxlen=receipts)

    def connect(self, memory: Memory) -> None:
        """Take versions out of `memory` as well from now on."""
        self._memory = memory

    def receipts(self) -> list[Receipt]:
        """Return what was done lately, the latest first."""
        return list(reversed(self._receipts))

    async def take_out(
        self,
        version_id: str,
        reason: LorryError,
        *,
        because: Reason,
        ordered_by: OrderedBy,
        files: bool,
        memory: bool = True,
        abort: bool = True,
        wait_seconds: float | None = None,
    ) -> Receipt:
        """Take a version out of memory and, with `files`, off the disk.

        Args:
            version_id: what has to go.
            reason: what those hear who run on it or ask for it meanwhile.
            because: what it is counted under.
            ordered_by: whose order it is.
            files: whether its files are deleted.
            memory: False when nothing can be in memory yet.
            abort: end the requests that run on it; else they finish first.
            wait_seconds: how long that may take; None = as long as it does.

        Raises:
            AdapterInUse: when requests run on it after `wait_seconds`; nothing was erased.
            AdapterNotLoaded: when a slot still holds weights.
            CacheBusy: when another process holds the version's lock for too long; memory is erased by then.
        """
        erasure = None
        if memory and self._memory is not None:
            erasure = await self._memory.withdraw(
                version_id, reason, abort=abort, wait_seconds=wait_seconds, because=because
            )
        disk_bytes = None
        if files:
            self._ledger.forget(version_id)
            disk_bytes = await self._disk.remove(version_id, reason=because)
        receipt = Receipt(
            version_id=version_id,
            because=because,
            ordered_by=ordered_by,
            at=datetime.now(UTC),
            memory=erasure,
            disk_bytes=disk_bytes,
        )
        self._receipts.append(receipt)
        done = " and deleted its files" if files else ""
        _log.info("took out %s (%s, ordered by the %s)%s", version_id, because, ordered_by, done)
        return receipt
