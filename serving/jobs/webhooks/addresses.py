"""Where a webhook may go: a public address, looked up by ourselves, so that what was checked is what is called.

A tenant chooses the URL and we make the request, from inside our network. So every address that the name resolves to
must be public, and the connection goes to the very address that was checked: asking the name a second time could be
answered otherwise.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from urllib.parse import SplitResult, urlsplit

from serving.jobs.errors import WebhookFailed, WebhookRefused

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_MAX_CHARACTERS = 2000
_PORTS = {"https": 443, "http": 80}
# A tenant's name server may take half a minute to say nothing, which nobody can cut short. The loop's own threads have
# everything else to do.
_lookups = ThreadPoolExecutor(64, thread_name_prefix="lookup")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, kw_only=True)
class Target:
    """A URL that was checked, and what of it a request needs."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """What the ``Host`` header says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    def at(self, address: Address) -> str:
        """Return the URL that reaches one address."""
        host = f"[{address}]" if address.version == 6 else str(address)
        return f"{self.scheme}://{host}:{self.port}{self.path}"


def check_url(url: str, *, private: bool) -> Target:
    """Return what a URL says, without asking anybody.

    Args:
        url: as the tenant gave it.
        private: whether plain http and addresses that are not public are allowed.

    Raises:
        WebhookRefused: saying what is wrong with it.
    """
    if len(url) > _MAX_CHARACTERS or not url.isascii() or not url.isprintable() or " " in url:
        raise _refused(f"must be a URL of at most {_MAX_CHARACTERS} printable ASCII characters")
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname
    except ValueError as exc:
        raise _refused(f"is no URL: {exc}") from exc
    if parts.scheme not in (("https", "http") if private else ("https",)):
        raise _refused("must begin with https://")
    if not host or parts.username is not None or parts.password is not None or parts.fragment:
        raise _refused("must name a host, and neither a user nor a fragment")
    if port == 0:
        raise _refused("has port 0")
    target = Target(scheme=parts.scheme, host=host, port=port or _PORTS[parts.scheme], path=_path(parts))
    if (literal := _literal(host)) is not None and not private:
        _require_public(literal)
    return target


async def resolve(target: Target, *, private: bool) -> list[Address]:
    """Return every address of the target's host, in the resolver's order.

    Raises:
        WebhookRefused: when one of them is not public.
        WebhookFailed: when the name is not known now.
    """
    literal = _literal(target.host)
    found = [literal] if literal is not None else await _look_up(target)
    if not private:
        for address in found:
            _require_public(address)
    return found


def is_public(address: Address) -> bool:
    """Say whether an address is anybody's on the internet; one that carries an IPv4 address inside is as that one."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address.teredo is not None:
            inner = address.teredo[1]
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
        if address.is_site_local:  # fec0::/10, which `is_global` takes for anybody's
            return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


async def _look_up(target: Target) -> list[Address]:
    loop = asyncio.get_running_loop()
    ask = partial(socket.getaddrinfo, target.host, target.port, type=socket.SOCK_STREAM)
    try:
        found = await loop.run_in_executor(_lookups, ask)
    except (OSError, UnicodeError) as exc:
        raise WebhookFailed("the host's name was not resolved") from exc
    addresses = [ipaddress.ip_address(str(sockaddr[0]).partition("%")[0]) for *_, sockaddr in found]
    return list(dict.fromkeys(addresses))


def _literal(host: str) -> Address | None:
    """Return the address that a host is written as, in whichever way the system's resolver takes; None for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        pass
    try:  # "127.1", "0x7f000001", "2130706433"
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except OSError:
        return None


def _require_public(address: Address) -> None:
    if not is_public(address):
        raise _refused("leads to an address that is not public")


def _path(parts: SplitResult) -> str:
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _refused(why: str) -> WebhookRefused:
    return WebhookRefused(f"the webhook's URL {why}", field="webhook.url")
