"""URLs that let others make one request of S3 without credentials: Signature Version 4 in the query.

boto3 signs too, in a tenth of what a whole request costs; handing out URLs is all that a busy registry does, so it is
done here in a twentieth of that. A test holds both side by side.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

_ALGORITHM = "AWS4-HMAC-SHA256"
_UNRESERVED = "-_.~"


@dataclass(frozen=True, kw_only=True)
class SignedUpload:
    """A URL that takes one PUT, and the headers which that PUT must carry; `url` is a secret until it expires."""

    url: str = field(repr=False)
    headers: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class SigningKey:
    """Credentials of one moment; `session_token` None = they do not expire."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


class Presigner:
    """Signs URLs of one bucket."""

    def __init__(
        self, bucket_url: str, *, region: str, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        """Prepare to sign.

        Args:
            bucket_url: scheme, host and, where the store wants it, the bucket's name as path; no trailing slash.
            region: the region to sign for.
            now: this host's clock; the store refuses what was signed more than 15 minutes ahead.
        """
        parts = urlsplit(bucket_url)
        self._origin, self._host, self._path = f"{parts.scheme}://{parts.netloc}", parts.netloc, parts.path
        self._region = region
        self._now = now
        self._derived: tuple[tuple[str, str], bytes] | None = None

    def sign(
        self,
        method: str,
        key: str,
        *,
        by: SigningKey,
        expires_seconds: int,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        now: datetime | None = None,
    ) -> str:
        """Return a URL for one request; it must carry exactly these headers (names in lower case).

        Its life counts from `now`, which None makes this host's clock.
        """
        moment = (now or self._now()).astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
        scope = f"{moment[:8]}/{self._region}/s3/aws4_request"
        signed_headers = {"host": self._host, **(headers or {})}
        names = ";".join(sorted(signed_headers))
        parameters = {
            **(query or {}),
            "X-Amz-Algorithm": _ALGORITHM,
            "X-Amz-Credential": f"{by.access_key_id}/{scope}",
            "X-Amz-Date": moment,
            "X-Amz-Expires": str(expires_seconds),
            "X-Amz-SignedHeaders": names,
        }
        if by.session_token:
            parameters["X-Amz-Security-Token"] = by.session_token
        path = self._path + "/" + quote(key, safe="/" + _UNRESERVED)
        pairs = sorted(
            (quote(name, safe=_UNRESERVED), quote(value, safe=_UNRESERVED)) for name, value in parameters.items()
        )
        search = "&".join(f"{name}={value}" for name, value in pairs)
        lines = "".join(f"{name}:{signed_headers[name].strip()}\n" for name in sorted(signed_headers))
        request = "\n".join((method, path, search, lines, names, "UNSIGNED-PAYLOAD"))
        to_sign = "\n".join((_ALGORITHM, moment, scope, hashlib.sha256(request.encode()).hexdigest()))
        signature = _hmac(self._key_of_day(by, moment[:8]), to_sign).hex()
        return f"{self._origin}{path}?{search}&X-Amz-Signature={signature}"

    def _key_of_day(self, by: SigningKey, day: str) -> bytes:
        known_as = (day, by.secret_access_key)
        if self._derived is None or self._derived[0] != known_as:
            key = ("AWS4" + by.secret_access_key).encode()
            for part in (day, self._region, "s3", "aws4_request"):
                key = _hmac(key, part)
            self._derived = (known_as, key)
        return self._derived[1]


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")
