"""How many messages one worker sends at once, and how few of them to one receiver or for one tenant.

A dead receiver keeps a place for as long as the time-out, again and again. With a part each, neither one host, whoever
calls it, nor one tenant, however many hosts they name, can hold up the others' messages.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

AT_ONCE: Final = 16
OF_A_TENANT: Final = 4
OF_A_HOST: Final = 2


class Places:
    """Who has how many messages under way."""

    def __init__(self) -> None:
        self._tenants: Counter[str] = Counter()
        self._hosts: Counter[str] = Counter()

    @property
    def are_taken(self) -> bool:
        """Whether there is no place left for anybody."""
        return self._tenants.total() >= AT_ONCE

    def tenants(self) -> tuple[str, ...]:
        """Return who has a place."""
        return tuple(sorted(self._tenants))

    def full_tenants(self) -> tuple[str, ...]:
        """Return who has as many places as one tenant may."""
        return tuple(sorted(tenant for tenant, count in self._tenants.items() if count >= OF_A_TENANT))

    def full_hosts(self) -> tuple[str, ...]:
        """Return which receivers have as many places as one may."""
        return tuple(sorted(host for host, count in self._hosts.items() if count >= OF_A_HOST))

    def take(self, tenant: str, host: str) -> None:
        """Count one more message under way."""
        self._tenants[tenant] += 1
        self._hosts[host] += 1

    def leave(self, tenant: str, host: str) -> None:
        """Count one less; who has none is forgotten."""
        self._tenants = self._tenants - Counter([tenant])
        self._hosts = self._hosts - Counter([host])
