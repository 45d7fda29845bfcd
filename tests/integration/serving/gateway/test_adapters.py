"""The registry's API through the gateway: a tenant's own adapters, looked at and steered."""

from __future__ import annotations

import httpx

from tests.support.gateway_server import Gateway

ANN = "/v1/adapters/ann/profile"


async def test_adapters_and_versions_are_listed_shown_and_compared(gateway: Gateway, http: httpx.AsyncClient) -> None:
    first = await gateway.publish("ann", seed=1)
    second = await gateway.publish("ann", seed=2)
    await gateway.publish("bob", seed=3)
    await gateway.publish("cid", seed=4, tenant="other")
    listed = (await http.get("/v1/adapters")).json()["adapters"]
    assert sorted(each["owner"]["user"] for each in listed) == ["ann", "bob"]
    only = (await http.get("/v1/adapters", params={"user_id": "ann", "alias": "live"})).json()["adapters"]
    assert [each["owner"]["user"] for each in only] == ["ann"]
    shown = (await http.get(ANN)).json()
    assert (shown["aliases"]["live"], shown["versions"]) == (second.version_id, 2)
    versions = (await http.get(f"{ANN}/versions")).json()["versions"]
    assert [each["version_id"] for each in versions] == [second.version_id, first.version_id]
    for selector, version_id in (("1", first.version_id), ("live", second.version_id)):
        assert (await http.get(f"{ANN}/versions/{selector}")).json()["version_id"] == version_id
    assert (await http.get(f"{ANN}/aliases/live")).json() == {"alias": "live", "version_id": second.version_id}
    compared = (await http.get(f"{ANN}/difference", params={"old": "1"})).json()
    assert (compared["old"]["version"], compared["new"]["version"]) == (1, 2)
    found = (await http.get("/v1/adapter-versions", params={"user_id": "ann"})).json()["versions"]
    assert len(found) == 2
    page = (await http.get("/v1/adapters", params={"limit": 1})).json()
    rest = (await http.get("/v1/adapters", params={"limit": 1, "cursor": page["next_cursor"]})).json()
    assert page["adapters"] + rest["adapters"] == listed


async def test_aliases_are_moved_promoted_and_rolled_back(gateway: Gateway, http: httpx.AsyncClient) -> None:
    first = await gateway.publish("ann", seed=1)
    second = await gateway.publish("ann", seed=2, live=False)
    moved = await http.put(f"{ANN}/aliases/candidate", json={"version_id": second.version_id, "why": "try it"})
    assert (moved.status_code, moved.json()["version_id"]) == (200, second.version_id)
    conflict = await http.put(f"{ANN}/aliases/candidate", json={"version_id": first.version_id})
    assert (conflict.status_code, conflict.json()["current_version_id"]) == (409, second.version_id)
    promoted = await http.post(f"{ANN}/promote", json={"why": "it is better"})
    assert (promoted.status_code, promoted.json()["version_id"]) == (200, second.version_id)
    asked = await http.post("/v1/users/ann/query", json={"question": "?"})
    assert asked.headers["x-lorry-adapter-version"] == "2"
    back = await http.post(f"{ANN}/rollback", json={"why": "it is not"})
    assert (back.status_code, back.json()["version_id"]) == (200, first.version_id)
    moves = (await http.get(f"{ANN}/history", params={"alias": "live"})).json()["moves"]
    assert [move["action"] for move in moves[:2]] == ["rollback", "promote"]
    assert {move["actor"] for move in moves[:2]} == {"gateway"}


async def test_versions_and_adapters_are_suspended_resumed_and_retired(
    gateway: Gateway, http: httpx.AsyncClient
) -> None:
    await gateway.publish("ann", seed=1)
    await gateway.publish("ann", seed=2)
    why = {"why": "ticket 7"}
    suspended = await http.post(f"{ANN}/versions/live/suspend", json=why)
    assert (suspended.status_code, suspended.json()["state"]) == (200, "suspended")
    assert (await http.post("/v1/users/ann/query", json={"question": "?"})).status_code == 409
    assert (await http.post(f"{ANN}/versions/2/resume", json=why)).json()["state"] == "ready"
    assert (await http.post("/v1/users/ann/query", json={"question": "?"})).status_code == 200
    assert (await http.post(f"{ANN}/suspend", json=why)).status_code == 200
    assert (await http.post("/v1/users/ann/query", json={"question": "?"})).status_code == 409
    resumed = await http.post(f"{ANN}/resume", json=why)
    assert (resumed.status_code, resumed.json()["suspended"]) == (200, False)
    in_use = await http.post(f"{ANN}/versions/2/retire", json=why)
    assert (in_use.status_code, in_use.json()["type"]) == (409, "urn:lorry:problem:version-in-use")
    await gateway.publish("ann", seed=3, live=False)
    assert (await http.post(f"{ANN}/versions/3/retire", json=why)).json()["state"] == "retired"
    assert (await http.post(f"{ANN}/suspend", json={})).status_code == 422


async def test_what_is_not_there_is_404(http: httpx.AsyncClient) -> None:
    for path in (ANN, f"{ANN}/versions", f"{ANN}/versions/1", f"{ANN}/aliases/live", f"{ANN}/difference?old=1"):
        assert (await http.get(path)).status_code == 404, path
