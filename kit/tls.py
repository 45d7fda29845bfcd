"""Whom this process trusts when it connects by TLS: read once, since reading it keeps a core busy for 30 ms.

httpx reads the authorities again for every client and every pool of connections, also for those that speak plain HTTP.
"""

from __future__ import annotations

import functools
import ssl

import httpx


@functools.cache
def authorities(*, by_environment: bool = False) -> ssl.SSLContext:
    """Return what httpx would make: certifi's authorities, or with `by_environment` those of SSL_CERT_FILE or _DIR."""
    return httpx.create_ssl_context(trust_env=by_environment)
