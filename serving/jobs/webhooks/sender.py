"""One try to deliver one message: to an address that was checked, within a time, and to nowhere else."""

from __future__ import annotations

import asyncio

import httpx

from kit.tls import authorities
from serving.jobs.errors import WebhookFailed
from serving.jobs.webhooks.addresses import Address, Target, check_url, resolve

_TAKEN = range(200, 300)


class WebhookSender:
    """Sends to receivers that nobody trusts; an async context manager is not needed: each try connects anew."""

    def __init__(self, *, timeout_seconds: float, private: bool) -> None:
        """Give each try `timeout_seconds` in all; `private` allows addresses that are not public."""
        self._timeout_seconds = timeout_seconds
        self._private = private

    async def send(self, url: str, body: bytes, headers: dict[str, str]) -> None:
        """Deliver a message; of the answer, only its status is looked at.

        Raises:
            WebhookRefused: when the URL leads where webhooks may not go.
            WebhookFailed: when it was not taken, whatever the reason; the message says which.
        """
        try:
            async with asyncio.timeout(self._timeout_seconds):
                target = check_url(url, private=self._private)
                status = await self._post(target, await resolve(target, private=self._private), body, headers)
        except TimeoutError as exc:
            raise WebhookFailed(f"the receiver took longer than {self._timeout_seconds:g} s") from exc
        except httpx.HTTPError as exc:
            raise WebhookFailed(f"the receiver did not answer: {type(exc).__name__}") from exc
        if 300 <= status < 400:
            raise WebhookFailed(f"the receiver answered {status}: redirections are not followed")
        if status not in _TAKEN:
            raise WebhookFailed(f"the receiver answered {status}")

    async def _post(self, target: Target, addresses: list[Address], body: bytes, headers: dict[str, str]) -> int:
        """Return the status of the first address that can be connected to."""
        named = {**headers, "host": target.authority, "content-type": "application/json", "user-agent": "lorry"}
        extensions = {"sni_hostname": target.host} if target.scheme == "https" else {}
        async with httpx.AsyncClient(
            timeout=self._timeout_seconds, follow_redirects=False, verify=authorities(), trust_env=False, http2=False
        ) as client:
            for number, address in enumerate(addresses, 1):
                try:
                    async with client.stream(
                        "POST", target.at(address), content=body, headers=named, extensions=extensions
                    ) as answer:
                        return answer.status_code
                except httpx.ConnectError:
                    if number == len(addresses):
                        raise
        raise WebhookFailed("the host's name has no address")
