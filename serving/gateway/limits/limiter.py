"""Tenants' limits in this process: its share of them, which is one part in as many as there are gateways.

A count in a database would cost every request a round trip; so each gateway admits its share alone. All together
never admit more than a tenant may; where a load balancer spreads a tenant unevenly, they admit less.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from serving.errors import RateExceeded, TooManyRequestsAtOnce
from serving.gateway.limits.bucket import Bucket
from serving.gateway.repository import TenantLimit

_MAX_TENANTS = 10_000


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """What a tenant may use of all gateways together."""

    requests_per_second: float
    burst: int
    concurrent: int

    def changed_by(self, limit: TenantLimit) -> Allowance:
        """Return this with what was set for a tenant in its place."""
        return Allowance(
            requests_per_second=limit.requests_per_second or self.requests_per_second,
            burst=limit.burst or self.burst,
            concurrent=limit.concurrent or self.concurrent,
        )


@dataclass(kw_only=True)
class _Tenant:
    """One tenant in this process."""

    bucket: Bucket
    running: int = 0


class Place:
    """A request's place among its tenant's, given back when the block ends."""

    def __init__(self, tenant: _Tenant, headers: dict[str, str]) -> None:
        self._tenant = tenant
        self.headers = headers

    def __enter__(self) -> Place:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tenant.running -= 1


class Limiter:
    """Admits requests within their tenant's allowance, or says when to come back."""

    def __init__(
        self,
        usual: Allowance,
        *,
        copies: Callable[[], int] = lambda: 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Admit by `usual` whom nothing was set for; `copies` is how many gateways there are."""
        self._usual = usual
        self._copies = copies
        self._clock = clock
        self._tenants: OrderedDict[str, _Tenant] = OrderedDict()

    def enter(self, tenant: str, limit: TenantLimit) -> Place:
        """Return a request's place, to be left by ending its block.

        Raises:
            RateExceeded: when the tenant has sent too many of late.
            TooManyRequestsAtOnce: when too many of its requests are running.
        """
        allowance, copies, now = self._usual.changed_by(limit), max(1, self._copies()), self._clock()
        rate, burst = allowance.requests_per_second / copies, max(1.0, allowance.burst / copies)
        found = self._find(tenant, rate=rate, burst=burst, now=now)
        most = max(1, allowance.concurrent // copies)
        if found.running >= most:
            raise TooManyRequestsAtOnce(
                f"this tenant has {found.running} requests running here, and may have {most}", retry_after_seconds=1
            )
        wait = found.bucket.take(now)
        if wait:
            raise RateExceeded(
                f"this tenant may send {rate:g} requests a second here, and {burst:g} at once after a pause",
                retry_after_seconds=math.ceil(wait),
            )
        found.running += 1
        return Place(found, _headers(found.bucket, now=now))

    def _find(self, tenant: str, *, rate: float, burst: float, now: float) -> _Tenant:
        found = self._tenants.get(tenant)
        if found is None:
            found = self._tenants[tenant] = _Tenant(bucket=Bucket(per_second=rate, burst=burst, now=now))
            self._forget_idle()
        elif (found.bucket.per_second, found.bucket.burst) != (rate, burst):
            found.bucket.resize(per_second=rate, burst=burst, now=now)
        self._tenants.move_to_end(tenant)
        return found

    def _forget_idle(self) -> None:
        """Forget who asked least recently, beyond so many; who has requests running is kept."""
        while len(self._tenants) > _MAX_TENANTS:
            oldest = next((name for name, each in self._tenants.items() if not each.running), None)
            if oldest is None:
                return
            del self._tenants[oldest]


def _headers(bucket: Bucket, *, now: float) -> dict[str, str]:
    return {
        "ratelimit-limit": str(int(bucket.burst)),
        "ratelimit-remaining": str(bucket.left(now)),
        "ratelimit-reset": str(math.ceil(bucket.full_in(now))),
    }
