"""Whatever the gateway offers, both clients can ask for; what they ask for, the gateway offers."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from lorry.client import AsyncClient, Client
from tests.support.client_calls import URL, both, described, methods, route_of

# A route that no method reaches, and why none should.
OUT_OF_REACH = {
    ("GET", "/healthz"): "a probe's, without a key and of one process, not of the tenant's Lorry",
    ("GET", "/readyz"): "a probe's, as /healthz",
    ("GET", "/version"): "an operator's, as /healthz",
    ("GET", "/metrics"): "Prometheus'",
}
# What a method says otherwise than by that name, and how.
SAID_OTHERWISE = {
    "cursor": "with the second page of a listing",
    "before": "with the second page of a listing",
    "limit": "clients read pages as large as they come",
}
PASSED_ON = {("POST", "/v1/chat/completions"): "whatever OpenAI's API takes is given as it is"}

APP = described()
SENT = both()
ROUTES = {(verb.upper(), path) for path, verbs in APP.openapi()["paths"].items() for verb in verbs}


@pytest.mark.parametrize("client", SENT)
def test_every_public_route_is_reached_by_a_method(client: str) -> None:
    reached = {route_of(sent, APP) for sent in SENT[client].values()}
    missing = ROUTES - reached - OUT_OF_REACH.keys()
    assert not missing, f"no method of the client calls {sorted(missing)}"


@pytest.mark.parametrize("client", SENT)
def test_no_method_calls_what_the_gateway_does_not_offer(client: str) -> None:
    lost = {name: (sent.method, sent.path) for name, sent in SENT[client].items() if route_of(sent, APP) is None}
    assert not lost


def test_every_method_of_both_clients_was_called_and_sent_the_same() -> None:
    with Client(url=URL, key="k") as client:
        blocking = {name: _asks_for(method) for name, method, _ in methods(client)}
    awaited = {name: _asks_for(method) for name, method, _ in methods(AsyncClient(url=URL, key="k"))}
    assert blocking == awaited
    assert SENT["blocking"].keys() == blocking.keys()
    assert SENT["blocking"] == SENT["awaited"]


def test_nothing_is_excepted_that_is_not_there() -> None:
    assert OUT_OF_REACH.keys() <= ROUTES
    assert PASSED_ON.keys() <= ROUTES


@pytest.mark.parametrize("route", sorted(ROUTES - OUT_OF_REACH.keys()), ids=" ".join)
def test_everything_that_a_route_takes_can_be_said(route: tuple[str, str]) -> None:
    verb, path = route
    sent = [each for each in SENT["blocking"].values() if route_of(each, APP) == route]
    described = APP.openapi()["paths"][path][verb.lower()]
    query = {each["name"] for each in described["parameters"] if each["in"] == "query"}
    assert query - SAID_OTHERWISE.keys() <= {name for each in sent for name in each.query}
    if route not in PASSED_ON:
        assert _fields(described) <= {name for each in sent for name in each.fields}


def _asks_for(method: Any) -> list[tuple[str, object]]:
    return [(each.name, each.default) for each in inspect.signature(method).parameters.values()]


def _fields(described: dict[str, Any]) -> set[str]:
    schema = described.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    if (name := schema.get("$ref", "").rpartition("/")[2]) != "":
        schema = APP.openapi()["components"]["schemas"][name]
    return set(schema.get("properties", {}))
