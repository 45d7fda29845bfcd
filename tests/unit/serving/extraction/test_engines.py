"""Whose engine a version is sent to, and how operators say which there are."""

from __future__ import annotations

from datetime import UTC, datetime

import httpx
import pytest

from kit.errors import SettingsInvalid
from registry.manifest import BaseIdentity, LoraShape, Manifest, ManifestFile, Owner
from serving.extraction.engine_client import EngineClient
from serving.extraction.engines import EngineName, Engines
from serving.extraction.settings import BaseEngineSettings
from tests.support.adapters import BASE, NEXT_BASE

OTHER_NAME = NEXT_BASE.model_copy(update={"id": "test/next-by-another-name"})
URLS = {NEXT_BASE.id: "http://next", OTHER_NAME.id: "http://next", "test/at-home": "http://default"}


def version(base: BaseIdentity) -> Manifest:
    return Manifest(
        owner=Owner(tenant="t", user="ann"),
        base=base,
        lora=LoraShape(rank=4, alpha=8, target_modules=("q_proj",)),
        files=(ManifestFile(path="adapter_config.json", size_bytes=1, sha256="0" * 64),),
        version_id="v" + "a" * 32,
        version=2,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


class Row:
    """Every engine that was connected to, by its URL; those in `down` fail their health check."""

    def __init__(self, *down: str) -> None:
        self.clients: dict[str, EngineClient] = {}
        self.names: list[tuple[str, EngineName]] = []
        self.down = down

    def connect(self, url: str, name: EngineName) -> EngineClient:
        def answer(request: httpx.Request) -> httpx.Response:
            return httpx.Response(503 if url in self.down else 200)

        assert url not in self.clients
        self.names.append((url, name))
        self.clients[url] = EngineClient(url=url, token="t", transport=httpx.MockTransport(answer))
        return self.clients[url]


async def test_a_version_goes_to_the_engine_of_its_base_and_to_the_default_one_when_it_has_none() -> None:
    row = Row()
    async with Engines.connected("http://default", of_bases=URLS, connect=row.connect) as engines:
        found = {base.id: engines.of(version(base)) for base in (BASE, NEXT_BASE, OTHER_NAME)}
        at_home = engines.of(version(BASE.model_copy(update={"id": "test/at-home"})))
    default, other = row.clients["http://default"], row.clients["http://next"]
    assert found == {BASE.id: default, NEXT_BASE.id: other, OTHER_NAME.id: other}
    assert at_home is default


async def test_each_address_is_connected_to_once_and_measures_tell_the_default_from_others() -> None:
    row = Row()
    async with Engines.connected("http://default", of_bases=URLS, connect=row.connect) as engines:
        assert row.names == [("http://default", "default"), ("http://next", "other")]
        assert engines.all == tuple(row.clients.values())
        assert [engines.name(each) for each in engines.all] == ["default", "other"]


@pytest.mark.parametrize(
    ("down", "away"),
    [
        ((), []),
        (("http://default",), ["the engine", "the engine of base test/at-home"]),
        (("http://next",), ["the engine of base test/next", "the engine of base test/next-by-another-name"]),
    ],
)
async def test_who_does_not_answer_is_named_by_base(down: tuple[str, ...], away: list[str]) -> None:
    async with Engines.connected("http://default", of_bases=URLS, connect=Row(*down).connect) as engines:
        assert await engines.away() == away


def test_engines_of_bases_are_read_from_one_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    assert BaseEngineSettings.read().base_engine_urls == {}
    monkeypatch.setenv("LORRY_BASE_ENGINE_URLS", "")
    assert BaseEngineSettings.read().base_engine_urls == {}
    monkeypatch.setenv("LORRY_BASE_ENGINE_URLS", '{"org/next": "http://next:8100", "b": "https://b"}')
    assert BaseEngineSettings.read().base_engine_urls == {"org/next": "http://next:8100", "b": "https://b"}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("next=http://next", "must be a JSON object"),
        ('["http://next"]', "must be a JSON object"),
        ('{"next": 1}', "the URL of base 'next' must begin with http://"),
        ('{"next": "ftp://ada:hush@next"}', "the URL of base 'next' must begin with http://"),
        ('{"": "http://next"}', "must be 1 to 256 characters"),
    ],
)
def test_what_is_no_address_is_refused_by_name_and_not_repeated(
    value: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORRY_BASE_ENGINE_URLS", value)
    with pytest.raises(SettingsInvalid, match=reason) as caught:
        BaseEngineSettings.read()
    assert caught.value.field == "LORRY_BASE_ENGINE_URLS"
    assert "hush" not in caught.value.message
