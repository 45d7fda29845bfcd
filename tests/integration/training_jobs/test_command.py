"""`lorry jobs` and `lorry campaigns`, as processes."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import uuid

import httpx
import pytest

from registry.client import RegistryClient
from registry.engines.schemas import Holdings, Registration
from tests.support.command import Lorry
from tests.support.ports import free_port_block
from tests.support.registry_server import TOKEN
from tests.support.training_jobs import Harbour


@pytest.fixture
async def lorry(harbour: Harbour, monkeypatch: pytest.MonkeyPatch) -> Lorry:
    """The command, in a home of its own; ann and bob have transcripts."""
    monkeypatch.setenv("LORRY_BASE_MODEL", str(harbour.base))
    monkeypatch.setenv("LORRY_THREADS", "1")
    for user in ("ann", "bob"):
        await harbour.add_user(user)
    return Lorry(
        harbour.nursery,
        registry_url=harbour.registry_url,
        database_url=harbour.database_settings.database_url,
        home=harbour.directory / "home",
    )


_TINY = ("--set", "steps=2", "--set", "rank=2", "--set", "dataset.min_held_out=2", "--set", "max_length=96")


async def test_a_job_waits_until_its_pairs_are_reviewed_and_is_trained_on_what_was_decided(
    lorry: Lorry, harbour: Harbour
) -> None:
    (ann,) = await lorry.json("jobs", "submit", "ann", "--review", *_TINY)
    assert ann["review"] is True
    code, _, complaint = await lorry("review", "ann", "--job", ann["id"])
    assert code == 4
    assert "waits for no review" in complaint
    await lorry("jobs", "work", "--until-idle", "--worker-id", "here")
    code, told, _ = await lorry("jobs", "show", ann["id"])
    assert f"`lorry review ann --job {ann['id']}`, then `lorry jobs resume {ann['id']}`" in told
    events = await lorry.json("jobs", "events", ann["id"])
    assert events[-1]["kind"] == "waits for review"
    assert "dataset" not in {event["detail"].get("stage") for event in events}
    code, _, complaint = await lorry("review", "bob", "--job", ann["id"])
    assert code == 3
    assert "bob has no training job" in complaint
    before = await lorry.json("review", "ann", "--job", ann["id"])
    dropped = before["pairs"][0]
    decided = await lorry.json("review", "ann", "--job", ann["id"], "--drop", dropped["id"])
    assert decided["train"] == before["train"] - 1
    assert (await lorry.json("jobs", "resume", ann["id"]))["state"] == "queued"
    await lorry("jobs", "work", "--until-idle", "--worker-id", "here")
    trained = await lorry.json("jobs", "show", ann["id"])
    assert trained["state"] in {"succeeded", "rejected"}, trained["error"]
    assert trained["dataset"]["digest"] == decided["digest"]
    code, _, complaint = await lorry("review", "ann", "--job", ann["id"])
    assert code == 4
    assert f"is {trained['state']} and waits for no review" in complaint


async def test_jobs_are_submitted_steered_and_worked_off(lorry: Lorry, harbour: Harbour) -> None:
    ann, bob = await lorry.json("jobs", "submit", "ann", "bob", *_TINY)
    assert (ann["state"], ann["settings"]["steps"], ann["base"]) == ("queued", 2, str(harbour.base))
    code, _, complaint = await lorry("jobs", "submit", "ann")
    assert code == 4
    assert "one training per user at a time" in complaint
    assert (await lorry.json("jobs", "cancel", bob["id"]))["state"] == "canceled"
    code, told, complaint = await lorry("jobs", "work", "--until-idle", "--worker-id", "here")
    assert code == 0, complaint
    lines = [line for line in complaint.splitlines() if line.startswith(f"job {ann['id']}: ")]
    assert [line.split()[2] for line in lines[:3]] == ["snapshot", "estimate", "write"]
    assert re.search(r": write done in \d+\.\d s, next: dataset, when a device is free$", lines[2]), lines
    assert "publish done in" in lines[-2]
    assert not re.search(r"\bann\b", complaint)
    shown = await lorry.json("jobs", "show", ann["id"])
    assert lines[-1] == f"job {ann['id']}: {shown['state']}"
    quality = shown["dataset"]["quality"]
    code, told, _ = await lorry("jobs", "show", ann["id"])
    assert f"dataset    {quality['kept']} of {quality['examined']} examples to train on" in told
    assert re.search(r"^platitudes nats a token under the base: \S", told, re.MULTILINE), told
    assert (await lorry.json("jobs", "show", bob["id"]))["dataset"] is None
    code, told, _ = await lorry("jobs", "events", ann["id"], "--follow")
    assert re.search(r"  train done in \d+\.\d s, next: evaluate$", told, re.MULTILINE), told
    assert shown["state"] in {"succeeded", "rejected"}, shown["error"]
    assert {each["of"] for each in shown["costs"] if not each["is_estimate"]} == {"write", "train", "evaluate"}
    code, told, _ = await lorry("jobs", columns=80)
    assert code == 0
    assert ann["id"] in told
    assert "canceled" in told
    assert max(map(len, told.splitlines())) <= 80
    kinds = [each["kind"] for each in await lorry.json("jobs", "events", ann["id"])]
    assert (kinds[0], kinds[-1]) == ("submitted", shown["state"])
    (worker,) = await lorry.json("jobs", "workers")
    assert (worker["worker_id"], worker["state"], worker["jobs"]) == ("here", "left", 0)


async def test_rules_and_quotas_are_shown_and_changed(lorry: Lorry) -> None:
    changed = await lorry.json("jobs", "rules", "--set", "enabled=yes", "--set", "min_words=5")
    assert (changed["enabled"], changed["min_words"]) == (True, 5)
    code, _, complaint = await lorry("jobs", "rules", "--set", "schedule=monday")
    assert code == 2
    assert "cron line" in complaint
    begun = await lorry.json("jobs", "rules", "--set", "settings.start=shared/common", "--set", "settings.steps=9")
    assert begun["settings"] == {"start": "shared/common", "steps": "9"}
    code, told, _ = await lorry("jobs", "rules", "--set", "settings.steps=")
    assert code == 0
    assert re.search(r"^settings\.start +shared/common$", told, re.MULTILINE), told
    assert "settings.steps" not in told
    code, _, complaint = await lorry("jobs", "rules", "--set", "settings.stepps=9")
    assert (code, "stepps" in complaint) == (2, True)
    assert (await lorry.json("jobs", "quota", "--max-daily", "1"))["max_daily"] == 1
    (queued,) = await lorry.json("jobs", "submit", "ann")
    code, _, complaint = await lorry("jobs", "submit", "bob")
    assert code == 6
    assert "of its day" in complaint
    code, told, _ = await lorry("status")
    assert code == 0
    assert re.search(r"^bob: due for a training: \d+ own words and no adapter$", told, re.MULTILINE), told
    assert f"ann: in training, see `lorry jobs show {queued['id']}`" in told


async def test_a_campaign_is_begun_and_aborted(lorry: Lorry, harbour: Harbour) -> None:
    code, _, complaint = await lorry("campaigns", "begin")
    assert code == 2
    assert "known are smollm2-135m-instruct. Register another with `lorry bases add" in complaint
    await lorry.json("bases", "add", str(harbour.base))
    begun = await lorry.json("campaigns", "begin", "--per-hour", "30")
    assert (begun["state"], begun["users"], begun["done"]) == ("running", 2, 0)
    code, told, _ = await lorry("campaigns", "pause", begun["id"])
    assert code == 0
    assert "paused, 0 of 2 users" in told
    code, told, _ = await lorry("campaigns", columns=80)
    assert (code, begun["id"] in told, max(map(len, told.splitlines())) <= 80) == (0, True, True)
    assert (await lorry.json("campaigns", "abort", begun["id"]))["state"] == "aborted"
    code, _, complaint = await lorry("campaigns", "show", "c" + 32 * "0")
    assert code == 3
    assert "no campaign" in complaint


async def test_a_campaign_for_a_base_that_no_engine_serves_says_so(lorry: Lorry, harbour: Harbour) -> None:
    base = await lorry.json("bases", "add", str(harbour.base))
    code, told, note = await lorry("campaigns", "begin", "--user", "ann")
    assert (code, "running, 0 of 1 users" in told) == (0, True)
    assert "no engine that is alive serves this base yet" in note
    async with RegistryClient(url=harbour.registry_url, token=TOKEN, actor="test") as registry:
        identity = await registry.show_base(base["id"])
        presence = Registration(incarnation=uuid.uuid4().hex, base=identity.identity, holdings=Holdings())
        await registry.engines.register("gpu-7", presence)
    code, _, note = await lorry("campaigns", "begin", "--user", "bob")
    assert (code, "no engine" in note) == (0, False)


async def test_a_machine_serves_its_trainings_over_http(lorry: Lorry, harbour: Harbour) -> None:
    port = free_port_block(1)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "lorry.cli", "jobs", "serve", "--port", str(port)),
        env=os.environ | lorry.environment,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        first = (await asyncio.wait_for(process.stdout.readline(), 300)).decode()
        assert first.startswith(f"export TRAINING_URL=http://127.0.0.1:{port} TRAINING_TOKEN=$(cat ")
        token = (harbour.directory / "home" / "secrets" / "training-token").read_text()
        headers = {"authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=30) as client:
            answer = await client_answers(client, "/v1/tenants/default/users/ann/trainings")
            assert answer.status_code == 201
    finally:
        process.send_signal(signal.SIGINT)
        await asyncio.wait_for(process.wait(), 300)
    assert [job["user_id"] for job in await lorry.json("jobs")] == ["ann"]


async def client_answers(client: httpx.AsyncClient, path: str) -> httpx.Response:
    """Submit a training as soon as the service listens."""
    for _ in range(3000):
        try:
            return await client.post(path, json={})
        except httpx.ConnectError:
            await asyncio.sleep(0.1)
    raise AssertionError("the service never listened")
