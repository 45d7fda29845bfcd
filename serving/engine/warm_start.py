"""After a restart, the adapters most used before are brought back first.

How often each version was used is kept beside the disk cache: version ids and counts, nothing else. What was used long
ago fades. Bringing back is never urgent, takes no slot, pushes nothing out of host memory, and begins when the
registry's directory has said what may be served; every version is asked for like any other.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

from kit.background import Errands, again_and_again
from kit.errors import LorryError
from registry.errors import NotServable, VersionNotFound
from serving.engine.pool.tier import Tier
from serving.engine.resolver import is_version_id
from serving.errors import EngineDraining, TierFull

_log = logging.getLogger(__name__)
_FILE = ".usage.json"
_FORMAT = "lorry.usage/1"
_REMEMBERED = 4096
_MAX_FILE_BYTES = 1 << 20
_SAVE_SECONDS = 30.0
_HALF_LIFE_SAVES = 2880  # a day
_POLL_SECONDS = 0.1


class Usage:
    """How often each version was used, fading; at most `_REMEMBERED` are remembered for long."""

    def __init__(self, directory: Path) -> None:
        """Remember what is in `directory` from before; a file that cannot be read is as good as none."""
        self._path = directory / _FILE
        self._counts = _read(self._path)
        self._changed = False
        self._saves = 0

    def note(self, version_id: str) -> None:
        """Count one use."""
        self._counts[version_id] = self._counts.get(version_id, 0.0) + 1.0
        self._changed = True
        if len(self._counts) > 2 * _REMEMBERED:
            self._counts = dict(self._most_used()[:_REMEMBERED])

    def forget(self, version_id: str) -> None:
        """Leave no trace of a version."""
        if self._counts.pop(version_id, None) is not None:
            self._changed = True

    def most_used(self) -> list[str]:
        """Return versions, the most used first."""
        return [version_id for version_id, _ in self._most_used()]

    async def save(self) -> None:
        """Write what changed, whole or not at all; a disk that takes nothing costs the warm start only."""
        if not self._changed:
            return
        self._changed = False
        self._saves += 1
        if self._saves % _HALF_LIFE_SAVES == 0:
            self.fade()
        kept = {version_id: round(count, 3) for version_id, count in self._most_used()[:_REMEMBERED]}
        try:
            await asyncio.to_thread(_write, self._path, kept)
        except OSError as exc:
            _log.warning("which adapters are used was not written down: %s", exc.strerror)

    def fade(self) -> None:
        """Let every use so far weigh half, and forget what hardly weighs any more."""
        self._counts = {version_id: count / 2 for version_id, count in self._counts.items() if count >= 0.1}

    def _most_used(self) -> list[tuple[str, float]]:
        return sorted(self._counts.items(), key=lambda pair: (-pair[1], pair[0]))


class Pool(Protocol):
    """What a warm start needs of the pool."""

    @property
    def host(self) -> Tier:
        """The books of host memory."""

    async def prefetch(self, version_id: str, *, displace: bool) -> bool:
        """Bring a version into host memory; True when it was there already.

        Raises:
            TierFull: when there is no room; without `displace`, when something would have to make room.
        """


class WarmStart:
    """Brings back what was used most, and writes down what is used."""

    def __init__(
        self,
        usage: Usage,
        *,
        pool: Pool,
        is_open: Callable[[], bool],
        max_entries: int,
    ) -> None:
        """Prepare; `running` does it.

        Args:
            usage: what was used, and how often.
            pool: where adapters are brought.
            is_open: whether the directory lets adapters be served.
            max_entries: how many adapters may be in host memory without pushing out others.
        """
        self._usage = usage
        self._pool = pool
        self._is_open = is_open
        self._max_entries = max_entries

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Do it in the background while the block runs, and write down the last uses at its end."""
        errands = Errands(of="engine")
        errands.start(self._bring_back_when_open(), doing="the warm start")
        errands.start(again_and_again(self._save_in_a_while, 0.0, of="engine"))
        try:
            yield
        finally:
            await errands.close()
            await self._usage.save()

    async def bring_back(self) -> int:
        """Bring versions, the most used first, while there is room that nobody else uses; returns how many came."""
        self._usage.fade()
        brought = 0
        for version_id in self._usage.most_used():
            if version_id in self._pool.host:
                continue
            if len(self._pool.host) >= self._max_entries:
                break
            try:
                brought += not await self._pool.prefetch(version_id, displace=False)
            except (VersionNotFound, NotServable):
                self._usage.forget(version_id)
            except (TierFull, EngineDraining):
                break
            except LorryError as exc:  # counted as a failed load
                _log.info("could not bring back %s: %s", version_id, exc.message)
        return brought

    async def _bring_back_when_open(self) -> None:
        while not self._is_open():  # noqa: ASYNC110  # a clock closes it as well, and tells nobody
            await asyncio.sleep(_POLL_SECONDS)
        if brought := await self.bring_back():
            _log.info("brought back %d adapters that were used before", brought)

    async def _save_in_a_while(self) -> None:
        await asyncio.sleep(_SAVE_SECONDS)
        await self._usage.save()


def _read(path: Path) -> dict[str, float]:
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            return {}
        document = json.loads(path.read_bytes())
        return dict(_valid(document["uses"])) if document["format"] == _FORMAT else {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _valid(uses: dict[str, object]) -> Iterator[tuple[str, float]]:
    for version_id, count in uses.items():
        if is_version_id(version_id) and isinstance(count, int | float) and 0 < count < 1e12:
            yield version_id, float(count)


def _write(path: Path, counts: dict[str, float]) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump({"format": _FORMAT, "uses": counts}, file)
    temporary.replace(path)
