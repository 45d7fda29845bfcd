"""Whom a process trusts is read once, and the environment is heard only by who asks for it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import certifi
import httpx
import pytest

from kit.tls import authorities
from serving.gateway.passage.network import network


@pytest.fixture(autouse=True)
def _nothing_is_remembered() -> Iterator[None]:
    authorities.cache_clear()
    yield
    authorities.cache_clear()


def test_the_environment_names_the_authorities_of_who_listens_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *rest = re.findall("-----BEGIN.*?END CERTIFICATE-----", Path(certifi.where()).read_text(), re.DOTALL)
    ours = tmp_path / "ours.pem"
    ours.write_text(first)
    monkeypatch.setenv("SSL_CERT_FILE", str(ours))
    assert len(authorities(by_environment=True).get_ca_certs()) == 1
    assert len(authorities().get_ca_certs()) > len(rest) // 2


def test_all_connections_of_a_gateway_read_the_authorities_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    make = httpx.create_ssl_context
    monkeypatch.setattr(httpx, "create_ssl_context", lambda **how: read.append(how) or make(**how))
    network(connections=2048)
    network()
    assert len(read) == 1
