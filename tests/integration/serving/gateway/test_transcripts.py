"""Transcripts over HTTP."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx

from kit.database import Database
from tests.support.gateway_server import Gateway
from transcripts.store import TranscriptStore

PATH = "/v1/users/ann/transcripts"


def said(*texts: str, **more: Any) -> dict[str, Any]:
    return {"turns": [{"role": "user", "text": text} for text in texts], **more}


def lines(*objects: Any) -> bytes:
    return b"".join(each if isinstance(each, bytes) else json.dumps(each).encode() + b"\n" for each in objects)


async def stored(database: Database, user: str = "ann") -> list[str]:
    async with database.transaction() as session:
        return sorted(transcript.turns[0].text for transcript in await TranscriptStore(session).list("default", user))


async def test_a_transcript_is_put_read_listed_and_deleted_under_the_callers_name(
    http: httpx.AsyncClient, database: Database
) -> None:
    turns = [
        {"role": "other", "text": "hi", "time": None},
        {"role": "user", "text": "I like tea", "time": "2020-01-01T12:00:00+02:00"},
    ]
    put = await http.put(f"{PATH}/talk-1", json={"turns": turns, "title": "Tea"})
    assert (put.status_code, put.json()["name"], put.json()["created"]) == (200, "talk-1", True)
    transcript_id = put.json()["id"]
    for name in ("talk-1", transcript_id):
        read = (await http.get(f"{PATH}/{name}")).json()
        assert (read["id"], read["names"], read["title"], read["source_format"]) == (
            transcript_id, ["talk-1"], "Tea", "api"
        )  # fmt: skip
        assert read["turns"][1] == {"role": "user", "text": "I like tea", "time": "2020-01-01T10:00:00Z"}
    (head,) = (await http.get(PATH)).json()["transcripts"]
    assert (head["id"], head["names"], head["turns"], head["user_turns"]) == (transcript_id, ["talk-1"], 2, 1)
    assert (await http.delete(f"{PATH}/talk-1")).status_code == 204
    assert (await http.get(f"{PATH}/talk-1")).status_code == 404
    assert (await http.delete(f"{PATH}/talk-1")).json()["type"] == "urn:lorry:problem:transcript-not-found"
    assert await stored(database) == []


async def test_putting_again_changes_nothing_and_putting_another_replaces(
    http: httpx.AsyncClient, database: Database
) -> None:
    first = (await http.put(f"{PATH}/a", json=said("one"))).json()
    again = (await http.put(f"{PATH}/a", json=said("one"))).json()
    assert again == {**first, "created": False}
    await http.put(f"{PATH}/b", json=said("one"))
    await http.put(f"{PATH}/a", json=said("two"))
    assert await stored(database) == ["one", "two"], "b still stands for it"
    await http.put(f"{PATH}/b", json=said("two"))
    assert await stored(database) == ["two"]
    await http.delete(f"{PATH}/a")
    assert (await http.get(f"{PATH}/b")).status_code == 200
    assert (await http.get(f"{PATH}/a")).status_code == 404
    await http.delete(f"{PATH}/b")
    assert await stored(database) == []


async def test_what_was_imported_otherwise_is_found_and_deleted_by_its_id(
    gateway: Gateway, http: httpx.AsyncClient, database: Database
) -> None:
    transcript = await gateway.say("ann", "imported")
    read = (await http.get(f"{PATH}/{transcript.id}")).json()
    assert (read["names"], read["source_format"]) == ([], "test")
    assert (await http.delete(f"{PATH}/{transcript.id}")).status_code == 204
    assert await stored(database) == []


async def test_a_bulk_upload_keeps_good_lines_and_names_bad_ones(http: httpx.AsyncClient, database: Database) -> None:
    body = lines(
        {"id": "a", **said("one")},
        b"\n",
        b"{broken\n",
        {"id": "b", "turns": [{"role": "other", "text": "x"}]},
        {"id": "c", **said("three", title="x" * 201)},
        {"id": "d e", **said("four")},
        b'{"id": "e", "turns": [{"role": "user", "text": "\\u0000"}]}\n',
        {"id": "a", **said("again")},
        {"id": "f", **said("two")},
        b"\xff\n",
        b'{"id": "g", "turns": ' + b"[" * 100 + b"]" * 100 + b"}\n",
        {"id": "h", "turns": [{"role": "user", "text": "x", "time": "0001-01-01T00:00:00+14:00"}]},
    )
    result = (await http.post(PATH, content=body)).json()
    assert (result["created"], result["known"], result["refused_count"]) == (2, 0, 9)
    refused = {each["line"]: each["field"] for each in result["refused"]}
    assert refused == {
        3: "line", 4: "turns", 5: "title", 6: "id", 7: "turns.0.text", 8: "id", 10: "body", 11: "body",
        12: "turns.0.time",
    }  # fmt: skip
    assert await stored(database) == ["one", "two"]
    again = (await http.post(PATH, content=lines({"id": "a", **said("one")}, {"id": "n", **said("new")}))).json()
    assert (again["created"], again["known"], again["refused"]) == (1, 1, [])


async def test_a_bulk_upload_without_a_good_line_is_refused(http: httpx.AsyncClient) -> None:
    for body in (b"", b"\n\n", b"{}\n"):
        answer = await http.post(PATH, content=body)
        assert (answer.status_code, answer.json()["type"]) == (422, "urn:lorry:problem:lines-invalid"), body


async def test_listing_goes_page_by_page_and_misses_nothing(http: httpx.AsyncClient) -> None:
    await http.post(PATH, content=lines(*({"id": f"t{number}", **said(f"text {number}")} for number in range(25))))
    seen: list[str] = []
    params: dict[str, Any] = {"limit": 10}
    for _ in range(3):
        page = (await http.get(PATH, params=params)).json()
        seen += [name for head in page["transcripts"] for name in head["names"]]
        params["cursor"] = page["next_cursor"]
    assert page["next_cursor"] is None
    assert sorted(seen) == sorted(f"t{number}" for number in range(25))
    for cursor in ("x", "bnVsbA", "WyJhIiwgImIiXQ", "WyJcdTAwMDAiXQ"):
        answer = await http.get(PATH, params={"cursor": cursor})
        assert (answer.status_code, answer.json()["field"]) == (422, "cursor"), cursor


async def test_all_are_read_with_their_turns_page_by_page_and_deleted_at_once(
    gateway: Gateway, http: httpx.AsyncClient, database: Database
) -> None:
    """Pages end at a number of transcripts and at an amount of text; names go with what they stand for."""
    long = "tea " * 200_000
    talks = {f"t{number}": said(f"{number}", long if number < 7 else "short") for number in range(12)}
    await http.post(PATH, content=lines(*({"id": name, **talk} for name, talk in talks.items())))
    await gateway.say("ann", "imported")
    await http.put("/v1/users/bob/transcripts/b", json=said("bob's"))
    found: dict[tuple[str, ...], list[str]] = {}
    pages, cursor = 0, None
    while pages == 0 or cursor is not None:
        asked = {"turns": "true", "limit": "5", **({"cursor": cursor} if cursor else {})}
        answer = (await http.get(PATH, params=asked)).json()
        assert 1 <= len(answer["transcripts"]) <= 5
        assert sum(len(turn["text"]) for each in answer["transcripts"] for turn in each["turns"]) < 4_800_000
        found |= {tuple(each["names"]): [turn["text"] for turn in each["turns"]] for each in answer["transcripts"]}
        pages, cursor = pages + 1, answer["next_cursor"]
    assert pages >= 3
    expected = {(name,): [turn["text"] for turn in talk["turns"]] for name, talk in talks.items()}
    assert {key: texts for key, texts in found.items() if key} == expected
    assert found[()] == ["imported"]
    gone = await http.delete(PATH)
    assert (gone.status_code, gone.json()) == (200, {"deleted": 13})
    assert (await http.delete(PATH)).json() == {"deleted": 0}
    assert await stored(database) == []
    assert await stored(database, "bob") == ["bob's"]
    assert (await http.get(f"{PATH}/t1")).status_code == 404
    put = await http.put(f"{PATH}/t1", json=talks["t1"])
    assert put.json()["created"] is True


async def test_two_users_and_two_tenants_have_names_of_their_own(gateway: Gateway, http: httpx.AsyncClient) -> None:
    await http.put(f"{PATH}/a", json=said("ann's"))
    await http.put("/v1/users/bob/transcripts/a", json=said("bob's"))
    async with gateway.caller(gateway.other_key) as other:
        assert (await other.get(f"{PATH}/a")).status_code == 404
        await other.put(f"{PATH}/a", json=said("the other ann's"))
        await other.delete(f"{PATH}/a")
    texts = [(await http.get(f"/v1/users/{user}/transcripts/a")).json()["turns"][0]["text"] for user in ("ann", "bob")]
    assert texts == ["ann's", "bob's"]


async def test_a_bad_transcript_is_refused_with_its_field(http: httpx.AsyncClient) -> None:
    bad: list[tuple[Any, str]] = [
        ({}, "body.turns"),
        ({"turns": []}, "body.turns"),
        ({"turns": [{"role": "me", "text": "x"}]}, "body.turns.0.role"),
        ({"turns": [{"role": "user", "text": "x", "time": "2020-01-01T00:00:00"}]}, "body.turns.0.time"),
        ({"turns": [{"role": "user", "text": "x", "time": "9999-12-31T23:59:59-14:00"}]}, "body.turns.0.time"),
        (said("x", colour="red"), "body.colour"),
    ]
    for body, field in bad:
        answer = await http.put(f"{PATH}/a", json=body)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field), answer.text
    answer = await http.put(f"{PATH}/a", json={"turns": [{"role": "other", "text": "x"}]})
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:lorry:problem:no-user-turn")


async def test_putting_and_deleting_at_once_ends_in_one_of_both(http: httpx.AsyncClient) -> None:
    await http.put(f"{PATH}/a", json=said("one"))
    calls = []
    for number in range(20):
        body = said("one" if number % 3 else "two")
        calls += [http.put(f"{PATH}/n{number % 4}", json=body), http.delete(f"{PATH}/n{(number + 1) % 4}")]
    statuses = {answer.status_code for answer in await asyncio.gather(*calls)}
    assert statuses <= {200, 204, 404}
