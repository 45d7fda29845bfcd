"""The examples of docs/api.md run as they stand, and leave no route out."""

from __future__ import annotations

import json
import shutil
from typing import Any

import httpx
import pytest

from serving.gateway.app import create_app
from serving.gateway.settings import GatewaySettings
from tests.support.api_page import NEED_WORKERS, PAGE, examples, run_bash, run_python
from tests.support.gateway_server import Gateway, StandInEngine


def answer(body: dict[str, Any]) -> str:
    if "response_format" not in body:
        return "I love tea"
    is_for_profile = "answers" in json.dumps(body["response_format"])
    return json.dumps({"answers": ["I love tea"]} if is_for_profile else "I love tea")


async def test_the_python_examples_run(gateway: Gateway, http: httpx.AsyncClient, stand_in: StandInEngine) -> None:
    stand_in.answer = answer
    await gateway.publish("ann")
    found = examples("python")
    client = found.pop("The Python client")
    told = {"The Python client": [await run_python(gateway, block) for block in client]}
    await gateway.say("ann", "I love tea", *[f"I love boat number {number}" for number in range(20)])
    (await http.post("/v1/users/ann/profile")).raise_for_status()
    del found[NEED_WORKERS]
    for section, blocks in found.items():
        told[section] = [await run_python(gateway, block) for block in blocks]
    assert told.keys() == {
        "The Python client",
        "A user's profile",
        "Corrections",
        "The question bank",
        "A question to a user's adapter",
        "OpenAI's API",
        "Trainings",
        "Adapters",
        "Erasing a user",
    }
    assert "[['chat-1']]\nI love tea by version 1\nword0 word1 word2 whole\n" in told["The Python client"][0]
    assert told["The Python client"][1] == "['I love tea', 'I love tea']\n[['chat-1']]\n"
    assert "| I love tea | I love tea" in told["A user's profile"][0]
    assert told["Corrections"][0].startswith("['I live in Oslo']\n")
    assert "- I love tea" in told["Corrections"][0]
    assert told["The question bank"] == ["acme.bank\nlorry.standard\n"]
    assert "I love tea by version 1" in told["A question to a user's adapter"][0]
    assert "users/ann I love tea\nword0 word1 word2 \n['users/ann']" in told["OpenAI's API"][0]
    assert told["Trainings"] == ["['submitted']\ncanceled\n"]
    assert told["Adapters"] == ["['ann']\n1 ['move']\nticket 7\n"]
    assert told["Erasing a user"][0].startswith("running intake")


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_the_curl_examples_run(gateway: Gateway, stand_in: StandInEngine) -> None:
    stand_in.answer = answer
    await gateway.publish("ann")
    await gateway.say("ann", *[f"I love boat number {number}" for number in range(20)])
    found = examples("bash")
    del found[NEED_WORKERS]
    told = {section: "".join([await run_bash(gateway, block) for block in blocks]) for section, blocks in found.items()}
    assert "# Profile of ann" in told["A user's profile"]
    assert '"text":"I live in Oslo"' in told["Corrections"]
    assert '"name":"lorry.standard"' in told["The question bank"]
    assert '"answer":"I love tea"' in told["A question to a user's adapter"]
    assert told["OpenAI's API"].endswith("data: [DONE]\n\n")
    assert '"created":1,"known":0,"refused":[{"line":2,"field":"turns"' in told["Transcripts"]
    assert '"state":"queued"' in told["Trainings"]
    assert '"version":1' in told["Adapters"]
    assert '"suspended":false' in told["Adapters"]
    assert '"usage":' in told["Usage"]
    assert '"state":"running"' in told["Erasing a user"]


def test_every_route_is_described(gateway_settings: GatewaySettings) -> None:
    for path in create_app(gateway_settings).openapi()["paths"]:
        assert path in PAGE, f"docs/api.md leaves out {path}"
