"""`lorry extractions`, as processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from serving.jobs.states import BatchState
from tests.support.command import Lorry
from tests.support.extraction_jobs import WEBHOOK_KEY, Mill
from tests.support.gateway_server import ENGINE_TOKEN
from tests.support.nursery import Nursery


@pytest.fixture
def lorry(nursery: Nursery, mill: Mill, tmp_path: Path) -> Lorry:
    """The command, in a home of its own, with every part elsewhere."""
    settings = mill.worker_settings()
    found = Lorry(
        nursery, registry_url=settings.registry_url, database_url=settings.database_url, home=tmp_path / "home"
    )
    assert settings.s3_endpoint_url is not None
    assert settings.s3_access_key_id is not None
    assert settings.s3_secret_access_key is not None
    found.environment |= {
        "LORRY_S3_ENDPOINT_URL": settings.s3_endpoint_url,
        "LORRY_S3_BUCKET": settings.s3_bucket,
        "LORRY_S3_PREFIX": settings.s3_prefix,
        "LORRY_S3_ACCESS_KEY_ID": settings.s3_access_key_id,
        "LORRY_S3_SECRET_ACCESS_KEY": settings.s3_secret_access_key.get_secret_value(),
        "LORRY_ENGINE_URL": settings.engine_url,
        "LORRY_ENGINE_TOKEN": ENGINE_TOKEN,
        "LORRY_EXTRACTION_WEBHOOK_KEY": WEBHOOK_KEY,
        "LORRY_EXTRACTION_ASKS_PER_TOPIC": "1",
        "LORRY_EXTRACTION_SAMPLES": "1",
        "LORRY_EXTRACTION_POLL_SECONDS": "0.05",
    }
    return found


async def test_a_batch_is_submitted_worked_off_and_read_from_the_command_line(
    lorry: Lorry, mill: Mill, tmp_path: Path
) -> None:
    await mill.add_users("ann", "bob")
    file = tmp_path / "users.ndjson"
    file.write_text('{"user_id": "bob"}\nnobody\n')
    code, told, complaint = await lorry("extractions", "submit", "ann", "--file", str(file))
    assert code == 0, complaint
    assert "no extraction worker is alive" in complaint
    (listed,) = await lorry.json("extractions")
    batch_id = listed["id"]
    assert told == f"{batch_id}: queued\n"
    assert (await lorry.json("extractions", "pause", batch_id))["state"] == "paused"
    assert (await lorry.json("extractions", "resume", batch_id))["state"] == "queued"
    code, _, complaint = await lorry("extractions", "work", "--until-idle", "--worker-id", "here")
    assert code == 0, complaint
    shown = await lorry.json("extractions", "show", batch_id)
    assert (shown["state"], shown["progress"]["done"], shown["failures"]) == ("done", 2, {"adapter-not-found": 1})
    code, told, complaint = await lorry("extractions", "results", batch_id)
    assert code == 0, complaint
    lines = [json.loads(line) for line in told.splitlines()]
    assert [line["sequence"] for line in lines] == [1, 2, 3]
    assert {line["user_id"] for line in lines if line["profile"]} == {"ann", "bob"}
    output = tmp_path / "results.jsonl"
    assert (await lorry("extractions", "results", batch_id, "--after", "1", "-o", str(output)))[0] == 0
    assert [json.loads(line) for line in output.read_text().splitlines()] == lines[1:]
    code, told, _ = await lorry("extractions", "follow", batch_id)
    assert code == 0
    assert "3 users: 2 done, 1 failed" in told
    code, told, _ = await lorry("extractions", columns=120)
    assert (code, batch_id in told) == (0, True)
    (worker,) = await lorry.json("extractions", "workers")
    assert (worker["worker_id"], worker["state"]) == ("here", "left")


async def test_following_a_submission_ends_with_the_batch(lorry: Lorry, mill: Mill) -> None:
    await mill.add_users("ann")
    async with mill.working():
        ended = await lorry.json("extractions", "submit", "--everybody", "--follow")
    assert (ended["state"], ended["progress"]["done"]) == (BatchState.DONE, 1)


async def test_what_cannot_be_submitted_is_said_with_its_place(lorry: Lorry, tmp_path: Path) -> None:
    file = tmp_path / "users.ndjson"
    file.write_text("ann\na b\n")
    for arguments, code, complaint in (
        ((), 2, "say which users"),
        (("ann", "--everybody"), 2, "say which users"),
        (("--file", str(file)), 2, "line 2 is no name"),
        (("--file", str(tmp_path / "none")), 2, "No such file"),
        (("ann", "--max-age-days", "3"), 2, "needs only = stale"),
        (("ann", "--webhook", "http://example.org"), 2, "must begin with https://"),
    ):
        found, _, told = await lorry("extractions", "submit", *arguments)
        assert found == code, told
        assert complaint in told
    found, _, told = await lorry("extractions", "show", "b" + "0" * 32)
    assert (found, "there is no batch extraction" in told) == (3, True)


async def test_limits_and_the_webhook_secret_are_shown_and_changed(lorry: Lorry) -> None:
    assert (await lorry.json("extractions", "limits", "--max-batches", "0"))["max_batches"] == 0
    code, _, told = await lorry("extractions", "submit", "ann")
    assert (code, "may have 0" in told) == (5, True)
    assert (await lorry.json("extractions", "limits", "--max-batches", "-1"))["max_batches"] == 20
    secret = (await lorry.json("extractions", "webhook-secret"))["secret"]
    assert secret.startswith("whsec_")
    assert (await lorry.json("extractions", "webhook-secret", "--rotate"))["secret"] != secret


def test_a_worker_without_its_settings_says_which_it_lacks() -> None:
    done = subprocess.run([sys.executable, "-m", "serving.jobs"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "LORRY_DATABASE_URL" in done.stderr
    assert "LORRY_ENGINE_URL" in done.stderr
