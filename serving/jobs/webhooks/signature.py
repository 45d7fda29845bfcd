"""How a receiver knows that a message is ours: HMAC-SHA256 over a timestamp and the body, under the tenant's secret.

The header is ``t=<seconds since 1970>,v1=<hex>``, with one more ``v1`` for a day after the secret was changed, so that
a receiver takes up the new one without missing a message. Law: ``verify(sign(…))`` holds for the same secret, time and
body, and for nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence

HEADER = "x-lorry-signature"
_PREFIX = "whsec_"


def derive_secret(key: bytes, *, tenant: str, generation: int) -> str:
    """Return a tenant's secret of one generation; nothing of it is kept anywhere but the key."""
    digest = hmac.digest(key, f"lorry webhook\n{tenant}\n{generation}".encode(), "sha256")
    return _PREFIX + base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def sign(secrets: Sequence[str], *, timestamp: int, body: bytes) -> str:
    """Return the header's value; one signature for each secret."""
    return ",".join([f"t={timestamp}", *(f"v1={_signature(secret, timestamp, body)}" for secret in secrets)])


def verify(header: str, *, secret: str, body: bytes, now: float, tolerance_seconds: float = 300.0) -> bool:
    """Say whether a message was signed under `secret`, lately: what a receiver should do."""
    fields = [field.partition("=") for field in header.split(",")]
    times = [value for name, _, value in fields if name == "t" and value.isdecimal() and len(value) < 20]
    if len(times) != 1 or abs(now - int(times[0])) > tolerance_seconds:
        return False
    expected = _signature(secret, int(times[0]), body)
    found = [hmac.compare_digest(value.encode(), expected.encode()) for name, _, value in fields if name == "v1"]
    return any(found)


def _signature(secret: str, timestamp: int, body: bytes) -> str:
    return hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
