"""Connections to the object stores that signed URLs lead to, for threads that wait."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3

from kit.tls import authorities


class ObjectPools:
    """Keeps idle connections, and goes through the proxies that the environment names; any thread may use it."""

    def __init__(self, *, timeout_seconds: float, idle_connections: int) -> None:
        """Connect to nothing yet; a store may be silent for `timeout_seconds`."""
        options: dict[str, Any] = {
            "maxsize": idle_connections,
            "timeout": urllib3.Timeout(connect=timeout_seconds, read=timeout_seconds),
            "retries": False,
            "ssl_context": authorities(by_environment=True),
        }
        self._direct = urllib3.PoolManager(**options)
        self._proxied = {scheme: urllib3.ProxyManager(url, **options) for scheme, url in _proxies().items()}

    def leading_to(self, url: str) -> urllib3.PoolManager:
        """Return the connections by which a URL is reached."""
        parts = urlsplit(url)
        proxied = self._proxied.get(parts.scheme)
        return self._direct if proxied is None or proxy_bypass(parts.hostname or "") else proxied

    def close(self) -> None:
        """Close every idle connection."""
        for pool in (self._direct, *self._proxied.values()):
            pool.clear()


def _proxies() -> dict[str, str]:
    """Return the proxies that the environment names for http and https."""
    return {scheme: url for scheme, url in getproxies().items() if scheme in {"http", "https"}}
