"""Corrections, differences and banks over HTTP: real gateway, registry, PostgreSQL and S3."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.support.extraction import said
from tests.support.gateway_server import Gateway, StandInEngine
from transcripts.store import TranscriptStore

OWN_BANK = """
name: acme.bank
version: "1"
extends: lorry.standard
topics:
  - topic: tools
    title: Tools
    cues: [hammer]
    questions:
      - id: tools.own
        paraphrases: ["Which tools do you use?", "What is in your toolbox?"]
        answer_schema: {type: string}
"""


def code(response: httpx.Response) -> str:
    return str(response.json()["type"]).removeprefix("urn:lorry:problem:")


@pytest.fixture
async def extracted(gateway: Gateway, http: httpx.AsyncClient, stand_in: StandInEngine) -> dict[str, Any]:
    """The profile of ann, who loves green tea and hates mornings."""
    stand_in.answer = lambda body: json.dumps({"answers": ["I love green tea", "I hate mornings"]})
    async with gateway.database.transaction() as session:
        await TranscriptStore(session).add("default", "ann", [said("I love green tea", "I hate mornings")])
    await gateway.publish("ann")
    found: dict[str, Any] = (await http.post("/v1/users/ann/profile")).raise_for_status().json()
    return found


async def stated(http: httpx.AsyncClient) -> dict[str, dict[str, Any]]:
    profile = (await http.get("/v1/users/ann/profile")).raise_for_status().json()
    return {each["text"]: each for topic in profile["topics"] for each in topic["statements"]}


async def test_facts_are_edited_confirmed_forbidden_and_it_survives_a_new_extraction(
    extracted: dict[str, Any], http: httpx.AsyncClient
) -> None:
    tea = (await stated(http))["I love green tea"]["id"]
    url = "/v1/users/ann/profile/corrections"
    edited = await http.post(url, json={"kind": "edit", "fact": tea, "text": "Drinks matcha", "by": "bob"})
    assert (edited.status_code, edited.json()["made_by"]) == (201, "bob")
    await http.post(url, json={"kind": "forbid", "fact": "I hate mornings", "by": "bob"})
    (await http.post("/v1/users/ann/profile")).raise_for_status()
    found = await stated(http)
    assert set(found) == {"Drinks matcha"}
    assert found["Drinks matcha"]["correction"]["by"] == "bob"
    listed = (await http.get(url)).json()["corrections"]
    assert [each["kind"] for each in listed] == ["edit", "forbid"]
    for each in listed:
        assert (await http.delete(f"{url}/{each['id']}", params={"by": "eve"})).status_code == 204
    assert (await http.get(url)).json() == {"corrections": []}
    assert len((await http.get(url, params={"withdrawn": True})).json()["corrections"]) == 2
    (await http.post("/v1/users/ann/profile")).raise_for_status()
    assert set(await stated(http)) == {"I love green tea", "I hate mornings"}


async def test_a_difference_says_what_came(extracted: dict[str, Any], http: httpx.AsyncClient) -> None:
    found = (await http.get("/v1/users/ann/profile/difference")).raise_for_status().json()
    assert {each["text"] for each in found["added"]} == {"I love green tea", "I hate mornings"}
    missing = await http.get("/v1/users/bob/profile/difference")
    assert (missing.status_code, code(missing)) == (404, "profile-not-extracted")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"kind": "edit", "fact": "I love skydiving", "text": "x", "by": "b"}, 404),
        ({"kind": "confirm", "fact": "f000000000000", "by": "b"}, 404),
        ({"kind": "edit", "fact": "I love green tea", "by": "b"}, 422),
        ({"kind": "confirm", "fact": "I love green tea", "text": "x", "by": "b"}, 422),
        ({"kind": "forbid", "fact": "a\u0000b", "by": "b"}, 422),
        ({"kind": "forbid", "fact": "tea", "by": " "}, 422),
        ({"kind": "forget", "fact": "tea", "by": "b"}, 422),
        ({"kind": "forbid", "fact": "tea"}, 422),
    ],
)
async def test_what_cannot_be_corrected_is_refused_and_changes_nothing(
    extracted: dict[str, Any], http: httpx.AsyncClient, body: dict[str, Any], status: int
) -> None:
    refused = await http.post("/v1/users/ann/profile/corrections", json=body)
    assert (refused.status_code, refused.headers["content-type"]) == (status, "application/problem+json")
    assert (await http.get("/v1/users/ann/profile/corrections")).json() == {"corrections": []}


@pytest.mark.parametrize("number", ["0", "-1", "9223372036854775808", "x", "1"])
async def test_a_correction_that_is_not_there_cannot_be_withdrawn(http: httpx.AsyncClient, number: str) -> None:
    refused = await http.delete(f"/v1/users/ann/profile/corrections/{number}", params={"by": "b"})
    assert refused.status_code == (404 if number == "1" else 422)


async def test_a_context_fits_its_budget_and_a_budget_too_small_is_refused(
    extracted: dict[str, Any], http: httpx.AsyncClient
) -> None:
    url = "/v1/users/ann/profile/context"
    whole = await http.get(url)
    assert whole.headers["content-type"] == "text/markdown; charset=utf-8"
    budget = -(-len(whole.content) // 3) - 1
    page = await http.get(url, params={"budget_tokens": budget})
    assert len(page.content) <= 3 * budget
    assert "less certain facts left out)" in page.text or "How they write" not in page.text
    assert "I love green tea" in whole.text
    for tokens in (63, 0, -1, 10**7):
        assert (await http.get(url, params={"budget_tokens": tokens})).status_code == 422
    assert (await http.get("/v1/users/nobody/profile/context")).status_code == 404


async def test_another_tenants_key_sees_and_changes_nothing(
    extracted: dict[str, Any], http: httpx.AsyncClient, gateway: Gateway
) -> None:
    url = "/v1/users/ann/profile/corrections"
    done = await http.post(url, json={"kind": "forbid", "fact": "I hate mornings", "by": "b"})
    other = {"authorization": f"Bearer {gateway.other_key}"}
    assert (await http.get(url, headers=other)).json() == {"corrections": []}
    gone = await http.delete(f"{url}/{done.json()['id']}", params={"by": "b"}, headers=other)
    assert gone.status_code == 404
    assert (await http.get("/v1/users/ann/profile/difference", headers=other)).status_code == 404
    assert set(await stated(http)) == {"I love green tea"}


async def test_a_bank_is_set_asked_and_given_up_again(
    extracted: dict[str, Any], http: httpx.AsyncClient, stand_in: StandInEngine, gateway: Gateway
) -> None:
    assert (await http.get("/v1/bank")).json()["revision"] is None
    put = await http.put("/v1/bank", json={"document": OWN_BANK, "by": "bob"})
    assert (put.status_code, put.json()["revision"], put.json()["bank"]["topics"][0]["topic"]) == (200, 1, "tools")
    stand_in.requests.clear()
    profile = (await http.post("/v1/users/ann/profile")).json()
    assert profile["bank"]["name"] == "acme.bank"
    assert "Which tools do you use?" in {body["messages"][0]["content"] for body in stand_in.requests}
    other = {"authorization": f"Bearer {gateway.other_key}"}
    assert (await http.get("/v1/bank", headers=other)).json()["revision"] is None
    assert (await http.delete("/v1/bank", params={"by": "bob"})).json()["bank"]["name"] == "lorry.standard"


async def test_a_bad_bank_names_its_field(http: httpx.AsyncClient) -> None:
    for bad, field in (("{", "the bank"), (OWN_BANK.replace("title: Tools", "title: ''"), "topics.0.title")):
        refused = await http.put("/v1/bank", json={"document": bad, "by": "b"})
        assert (refused.status_code, code(refused), refused.json()["field"]) == (422, "bank-invalid", field)


async def test_a_key_that_may_write_profiles_but_not_read_them_is_told_what_was_done_and_nothing_of_what_they_say(
    extracted: dict[str, Any], gateway: Gateway, http: httpx.AsyncClient
) -> None:
    tea, mornings = (extracted_id(extracted, text) for text in ("I love green tea", "I hate mornings"))
    bodies = [
        {"kind": "confirm", "fact": tea, "by": "bob"},
        {"kind": "edit", "fact": mornings, "text": "Rises late", "by": "bob"},
        {"kind": "forbid", "fact": "I love football", "by": "bob"},
    ]
    url = "/v1/users/ann/profile"
    shown = {}
    for scopes in (("profiles:write",), ("profiles:write", "profiles:read")):
        async with gateway.caller(await gateway.make_key(*scopes)) as writer:
            keyed = {"idempotency-key": "-".join(scopes)}
            made, again = await writer.post(url, headers=keyed), await writer.post(url, headers=keyed)
            corrections = [await writer.post(f"{url}/corrections", json=body) for body in bodies]
            assert [answer.status_code for answer in corrections] == [201] * 3
            ids = [answer.json()["id"] for answer in corrections]
            for correction_id in ids:
                assert (await writer.delete(f"{url}/corrections/{correction_id}?by=bob")).status_code == 204
            read = await writer.get(url)
        shown[scopes] = "".join(answer.text for answer in (made, again, *corrections))
        if len(scopes) == 1:
            assert (made.status_code, made.content, made.headers["x-lorry-adapter-version"]) == (204, b"", "1")
            assert (again.status_code, again.content, again.headers["idempotency-replayed"]) == (204, b"", "true")
            assert {(each.json()["text"], each.json()["statement"]) for each in corrections} == {(None, None)}
            assert read.status_code == 403
        else:
            assert (made.status_code, again.content) == (200, made.content)
            assert read.status_code == 200
    alone, both = shown.values()
    assert not any(word in alone for word in ("tea", "mornings", "late", "football"))
    assert all(word in both for word in ("green tea", "mornings", "Rises late"))
    assert len((await http.get(f"{url}/corrections", params={"withdrawn": True})).json()["corrections"]) == 6


def extracted_id(profile: dict[str, Any], text: str) -> str:
    (found,) = [each["id"] for topic in profile["topics"] for each in topic["statements"] if each["text"] == text]
    return str(found)
