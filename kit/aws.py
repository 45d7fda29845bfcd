"""What every client of AWS (or of what speaks its protocols) needs: sessions, time-outs, retries, threads to wait in.

boto3 blocks. Its calls run in threads of their own, a bounded number, so that neither an event loop nor anybody
else's work in the default executor ever waits for a service that is slow.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import boto3
import botocore.loaders
import botocore.session
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    ResponseStreamingError,
)
from botocore.parsers import ResponseParserError

if TYPE_CHECKING:
    from pydantic import SecretStr

P = ParamSpec("P")
T = TypeVar("T")
FOREIGN_ERRORS = (ClientError, BotoCoreError, ResponseParserError)
# What arrived, but not whole; boto3 does not try these again by itself.
DAMAGED = (IncompleteReadError, ResponseStreamingError, FlexibleChecksumError, ResponseParserError)
_CONNECT_SECONDS = 5.0
_THROTTLED = {"SlowDown", "RequestTimeout", "Throttling", "ThrottlingException", "TooManyRequests", "BadDigest"}
_CLOCK = {"RequestTimeTooSkewed", "RequestExpired"}


class Threads:
    """Threads that wait for one service, at most `count` at once; further calls queue."""

    def __init__(self, count: int, *, name: str) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix=name)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what the blocking function returns, called in one of the threads."""
        call = functools.partial(contextvars.copy_context().run, function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._pool, call)

    def close(self) -> None:
        """Take no more calls; those that run end by themselves, within their time-outs."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def session(*, access_key_id: str | None, secret_access_key: SecretStr | None, region: str) -> boto3.Session:
    """Return a session with these credentials, or with those that boto3's own chain finds."""
    core = botocore.session.get_session()
    core.register_component("data_loader", _descriptions(core.get_config_variable("data_path")))
    return boto3.Session(
        aws_access_key_id=access_key_id,
        aws_secret_access_key=secret_access_key.get_secret_value() if secret_access_key else None,
        region_name=region,
        botocore_session=core,
    )


@functools.cache
def _descriptions(path: str | None) -> botocore.loaders.Loader:
    """Return what reads the descriptions of services from disk: once for all sessions, as it takes 0.1 s of a core."""
    return botocore.loaders.create_loader(path)


def client_config(*, timeout_seconds: float, attempts: int, connections: int, **more: Any) -> Config:
    """Return a client's settings: what may be tried again is, after growing random pauses."""
    return Config(
        connect_timeout=min(_CONNECT_SECONDS, timeout_seconds),
        read_timeout=timeout_seconds,
        retries={"mode": "standard", "total_max_attempts": attempts},
        max_pool_connections=connections,
        tcp_keepalive=True,
        **more,
    )


def read_body(body: Any, size_bytes: int | None = None) -> bytes:
    """Return the next bytes of an answer's body; whatever keeps them from coming is an answer that is not whole."""
    try:
        data: bytes = body.read(size_bytes)
    except HTTPClientError as exc:  # a time-out among them: boto3 tries again what has not begun to arrive, not this
        raise IncompleteReadError(actual_bytes=-1, expected_bytes=size_bytes or -1) from exc
    return data


def error_code(exc: Exception) -> str:
    """Return the service's own code for a refusal; empty when the service did not answer."""
    return str(exc.response["Error"]["Code"]) if isinstance(exc, ClientError) else ""


def outage(exc: Exception) -> str | None:
    """Say in which way a service is out of order; None when it works, and refused for a better reason."""
    if isinstance(exc, ClientError):
        code, status = error_code(exc), exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code in _CLOCK:
            return "refuses this host's clock; set it right"
        return f"answered {code}" if status >= 500 or status == 429 or code in _THROTTLED else None
    if isinstance(exc, DAMAGED):
        return f"sent a damaged answer: {type(exc).__name__}"
    if isinstance(exc, ConnectionError | HTTPClientError):
        return f"did not answer: {type(exc).__name__}"
    if "Credentials" in type(exc).__name__:
        return "was not asked, for boto3 finds no credentials: set the access key id and secret, or give a role"
    return None
