"""What travels between the registry and engines, and to who asks about engines."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from kit.canonical import sha256_json
from kit.names import Name
from registry.manifest import BaseIdentity, Frozen, Sha256, VersionId

MAX_HOLDINGS = 100_000
MAX_WITHHELD = 5_000
Proof = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Incarnation = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Fact = Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")] | bool | int
_Versions = Annotated[tuple[VersionId, ...], Field(max_length=MAX_HOLDINGS)]


class Tier(StrEnum):
    """Where an engine holds a version; the fastest place counts, since it is in the slower ones as well."""

    DISK = "disk"
    HOST = "host"
    DEVICE = "device"


class Holdings(Frozen):
    """Every version that an engine holds, by tier: host = requests can name it now."""

    disk: _Versions = ()
    host: _Versions = ()
    device: _Versions = ()

    @classmethod
    def of(cls, tiers: dict[str, Tier]) -> Holdings:
        """Return the holdings of version id → tier."""
        return cls(**{tier.value: tuple(sorted(v for v, t in tiers.items() if t is tier)) for tier in Tier})

    def tiers(self) -> dict[str, Tier]:
        """Return version id → fastest tier."""
        return dict(self._pairs())

    @property
    def digest(self) -> str:
        """SHA-256 that is equal for equal holdings, whatever the order in which they were found."""
        return sha256_json(self.tiers())

    def _pairs(self) -> Iterator[tuple[str, Tier]]:
        for tier in Tier:  # slowest first, so that the fastest stays
            yield from ((version_id, tier) for version_id in getattr(self, tier))


class Registration(Frozen):
    """An engine that has started; `incarnation` is a secret of this start, which later calls must show.

    `proof` is a secret of this engine's disk: who shows it again may take a living engine's place, as after a crash.
    """

    incarnation: Incarnation
    proof: Proof | None = None
    base: BaseIdentity
    address: Annotated[str, Field(max_length=300, pattern=r"^https?://[\x21-\x7e]+$")] | None = None
    facts: Annotated[dict[Name, Fact], Field(max_length=32)] = Field(default_factory=dict)
    holdings: Holdings = Holdings()


class Heartbeat(Frozen):
    """A sign of life. `holdings` is sent when `holdings_digest` is news; `leases` = requests that run, by version."""

    incarnation: Incarnation
    holdings_digest: Sha256
    holdings: Holdings | None = None
    leases: Annotated[dict[VersionId, Annotated[int, Field(gt=0, lt=2**31)]], Field(max_length=10_000)] = Field(
        default_factory=dict
    )


class Farewell(Frozen):
    """An engine that stops."""

    incarnation: Incarnation


class Presence(Frozen):
    """Which start of which engine asks."""

    engine_id: Name
    incarnation: Incarnation


class Withheld(Frozen):
    """A version that the engine holds and must not serve; `delete` = nor keep, on disk or in memory.

    `reason` is ``suspended``, ``erased``, ``removed`` (retired, and its files are gone), ``unfinished`` or
    ``unknown`` (the registry has no such version).
    """

    model_config = ConfigDict(extra="ignore")  # an engine understands what a newer registry adds

    version_id: VersionId
    reason: str
    delete: bool


class Orders(Frozen):
    """The registry's answer to an engine.

    `withheld` is the whole list, every time: a version that is held and not in it may be served, except that what lies
    on the disk only is installed anew, and so asked for, before it is served. `report` asks for the holdings, which the
    registry does not have, or of which this answer could not name all that must be deleted or leave memory: obey, serve
    nothing because of it, and report again. `superseded` names versions that it holds in memory and may serve, but that
    no alias names any more while their adapter has a live one: they may leave memory once nobody uses them. What was
    said holds for `lease_seconds`, counted from the call.
    """

    model_config = ConfigDict(extra="ignore")

    withheld: tuple[Withheld, ...] = ()
    superseded: tuple[VersionId, ...] = ()
    report: bool = False
    lease_seconds: float = Field(gt=0)


EngineState = Literal["alive", "lapsed", "left"]


class EngineSummary(Frozen):
    """One engine. `held` counts versions by tier; `silent_seconds` is measured by the database's clock."""

    id: Name
    state: EngineState
    base_id: str | None
    address: str | None
    facts: dict[str, Fact]
    registered_at: datetime
    last_seen_at: datetime
    left_at: datetime | None
    silent_seconds: float
    held: dict[Tier, int]
    leases: int


class EnginePage(Frozen):
    """Engines by id; `next_cursor` is None on the last page."""

    engines: tuple[EngineSummary, ...]
    next_cursor: str | None


class Holder(Frozen):
    """An engine that said, when it was last seen, that it holds a version."""

    engine_id: Name
    state: EngineState
    tier: Tier
    leases: int
    last_seen_at: datetime
