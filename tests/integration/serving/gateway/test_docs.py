"""The examples of docs/api.md run as they stand, and leave no route out."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import sys
from pathlib import Path

import httpx
import pytest

from serving.gateway.app import create_app
from serving.gateway.settings import GatewaySettings
from tests.support.gateway_server import Gateway, StandInEngine

ROOT = Path(__file__).parents[4]
PAGE = (ROOT / "docs" / "api.md").read_text()


def examples(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


def answer(body: dict[str, object]) -> str:
    return json.dumps("I love tea") if "response_format" in body else "I love tea"


async def run(gateway: Gateway, *command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "PYTHONPATH": str(ROOT),
            "LORRY_URL": gateway.url,
            "LORRY_KEY": gateway.key,
        },
    )
    out, err = await process.communicate()
    assert process.returncode == 0, f"{out.decode()}\n{err.decode()}"
    return out.decode()


async def test_the_python_examples_run(gateway: Gateway, http: httpx.AsyncClient, stand_in: StandInEngine) -> None:
    stand_in.answer = answer
    await gateway.publish("ann")
    (await http.post("/v1/users/ann/profile")).raise_for_status()
    outputs = [await run(gateway, sys.executable, "-c", example) for example in examples("python")]
    assert len(outputs) == 4
    assert "[['chat-1']]\nI love tea by version 1\nword0 word1 word2 whole\n" in outputs[0]
    assert "I love tea by version 1" in outputs[2]
    assert "users/ann I love tea\nword0 word1 word2 \n['users/ann']" in outputs[3]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_the_curl_examples_run(gateway: Gateway, stand_in: StandInEngine) -> None:
    stand_in.answer = answer
    await gateway.publish("ann")
    outputs = [await run(gateway, "bash", "-ec", example) for example in examples("bash")]
    assert len(outputs) == 5
    assert "# Profile of ann" in outputs[0]
    assert '"answer":"I love tea"' in outputs[1]
    assert outputs[2].endswith("data: [DONE]\n\n")
    assert '"created":1,"known":0,"refused":[{"line":2,"field":"turns"' in outputs[3]
    assert '"usage":' in outputs[4]


def test_every_route_is_described(gateway_settings: GatewaySettings) -> None:
    for path in create_app(gateway_settings).openapi()["paths"]:
        assert path in PAGE, f"docs/api.md leaves out {path}"
