"""A question writer at a service, as the command drives it: asked what it costs, interrupted, gone on with."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from kit.database import Database
from kit.settings import DatabaseSettings
from lorry.context import Context, quiet
from lorry.home import Home
from lorry.local.plan import Plan
from lorry.local.stack import Stack
from lorry.settings import LorrySettings
from lorry.stages.claims import claimed_batches
from registry.client import RegistryClient
from tests.support.claude_server import KEY, Failure
from tests.support.command import Lorry
from tests.support.nursery import Nursery
from tests.support.openai_server import OpenAIServer
from tests.support.people import write_transcripts
from tests.support.registry_server import registry_settings, registry_url, serving
from tests.support.training_jobs import talks
from training.jobs.job import Submission
from training.jobs.jobs import Jobs
from training.jobs.writings.repository import WritingRepository
from transcripts.store import TranscriptStore

__all__ = ["registry_settings", "registry_url"]

REMOTE = ("--set", "dataset.writer=openai")


@pytest.fixture
def server() -> OpenAIServer:
    return OpenAIServer()


@pytest.fixture
async def lorry(
    nursery: Nursery, server: OpenAIServer, registry_url: str, database_settings: DatabaseSettings, tmp_path: Path
) -> AsyncIterator[Lorry]:
    command = Lorry(
        nursery, registry_url=registry_url, database_url=database_settings.database_url, home=tmp_path / "home"
    )
    prices = tmp_path / "prices.yaml"
    prices.write_text("as_of: 2026-11-01\nsource: a contract\nmodels:\n  m: {input: 1.0, output: 10.0}\n")
    async with serving(server.app()) as url:
        command.environment |= {
            "LORRY_WRITER_URL": f"{url}/v1",
            "LORRY_WRITER_API_KEY": KEY,
            "LORRY_WRITER_MODEL": "m",
            "LORRY_WRITER_PRICES_FILE": str(prices),
            "LORRY_WRITER_ATTEMPTS": "1",
            "LORRY_WRITER_CONCURRENCY": "1",
        }
        path = write_transcripts(tmp_path / "ada.jsonl")
        lines = path.read_text().replace("Ahoy again.", "Ahoy again, mail ada.lovelace@example.org!")
        path.write_text(lines)
        await command.json("import", "ada", str(path))
        yield command


async def test_an_interrupted_writing_goes_on_and_buys_nothing_twice(
    lorry: Lorry, server: OpenAIServer, tmp_path: Path
) -> None:
    code, told, complained = await lorry("build-dataset", "ada", *REMOTE, "--estimate")
    assert code == 0, complained
    assert "about $0." in told
    assert server.calls == 0
    server.fails = lambda body: Failure(status=503) if len(server.paid) == 2 else None
    code, _, complained = await lorry("build-dataset", "ada", *REMOTE)
    assert code == 5, complained
    assert len(server.paid) == 2
    server.fails = lambda body: None
    built = await lorry.json("build-dataset", "ada", *REMOTE)
    assert built["question_writer"] == "openai/1:m"
    assert set(server.paid.values()) == {1}
    assert built["redaction"] == {"email": 24}
    assert "ada.lovelace" not in json.dumps(server.bodies)
    assert "ada.lovelace" not in (Path(built["directory"]) / "examples" / "train.jsonl").read_text()
    code, told, complained = await lorry("build-dataset", "ada", *REMOTE)
    assert code == 0, complained
    assert f"openai/1:m was paid for {len(server.paid)} answers: $0." in told
    assert "redacted: email 24" in told
    assert built["writing"]["cost"]["usage"]["requests"] == len(server.paid)
    paid = len(server.bodies)
    review = await lorry.json("review", "ada", "--drop", (await lorry.json("review", "ada"))["pairs"][0]["id"])
    assert review["train"] == built["train"] - 1
    assert len(server.bodies) == paid  # what was written once is read again
    await what_was_reviewed_stays_what_is_trained_on(lorry, review, tmp_path)
    assert len(server.bodies) == paid
    written = [path for path in (tmp_path / "home" / "datasets").rglob("writing/*/*") if path.name == "answers"]
    assert not written


async def test_what_a_command_pays_a_writer_counts_in_the_tenants_month(lorry: Lorry, server: OpenAIServer) -> None:
    await lorry.json("jobs", "quota", "--max-monthly-dollars", "0.0001")
    code, _, complained = await lorry("build-dataset", "ada", *REMOTE)
    assert code == 6, complained
    assert "of 0.00 in 30 days 0.00 are spent" in complained
    assert server.calls == 0
    await lorry.json("jobs", "quota", "--max-monthly-dollars", "-1")
    cost = (await lorry.json("build-dataset", "ada", *REMOTE))["writing"]["cost"]
    spent, estimated = sorted(await lorry.json("jobs", "costs", "--by", "kind"), key=lambda each: each["is_estimate"])
    assert (spent["of"], estimated["of"]) == ("write", "write")
    assert (spent["dollars"], spent["output_tokens"]) == (cost["dollars"], cost["usage"]["output_tokens"])
    assert estimated["dollars"] > 0
    await lorry.json("jobs", "quota", "--max-monthly-dollars", str(spent["dollars"] / 2))
    code, _, complained = await lorry("jobs", "submit", "ada")
    assert code == 6, complained
    assert "in 30 days: wait, or have max_monthly_dollars raised" in complained


async def test_a_writing_that_was_broken_off_keeps_no_dollars_from_another(lorry: Lorry, server: OpenAIServer) -> None:
    """It is paid for as far as it came, and promised the rest only once somebody goes on with it."""
    server.fails = lambda body: Failure(status=503) if len(server.paid) == 2 else None
    assert (await lorry("build-dataset", "ada", *REMOTE))[0] == 5
    (spent,) = await lorry.json("jobs", "costs", "--by", "kind")
    assert (spent["is_estimate"], spent["dollars"] > 0) == (False, True)
    server.fails = lambda body: None
    cost = (await lorry.json("build-dataset", "ada", *REMOTE))["writing"]["cost"]
    whole, estimated = sorted(await lorry.json("jobs", "costs", "--by", "kind"), key=lambda each: each["is_estimate"])
    assert whole["dollars"] == pytest.approx(cost["dollars"])
    assert estimated["dollars"] > 0


async def test_a_useless_sample_is_paid_for_also_where_the_next_one_is_not_answered(
    lorry: Lorry, server: OpenAIServer
) -> None:
    server.answer = lambda body: json.dumps({"pairs": []})
    server.fails = lambda body: Failure(status=503) if server.calls > 1 else None
    assert (await lorry("build-dataset", "ada", *REMOTE))[0] == 5
    (spent,) = await lorry.json("jobs", "costs", "--by", "kind")
    assert (spent["is_estimate"], spent["dollars"] > 0) == (False, True)


async def what_was_reviewed_stays_what_is_trained_on(lorry: Lorry, review: dict[str, Any], tmp_path: Path) -> None:
    """Whatever was imported or set since the dataset was built: a decision changes nothing else and buys nothing."""
    more = tmp_path / "more.txt"
    more.write_text("Bob: Ahoy?\nAda: I love all the lighthouses of the north.\n")
    await lorry.json("import", "ada", str(more), "--user-speaker", "Ada")
    lorry.environment = {key: value for key, value in lorry.environment.items() if "WRITER" not in key}
    again = await lorry.json("review", "ada", "--drop", review["pairs"][0]["id"])
    assert again["train"] == review["train"] - 1
    kept = {pair["id"] for pair in again["pairs"] if pair["status"] == "kept"}
    assert kept == {pair["id"] for pair in review["pairs"] if pair["status"] == "kept"} - {review["pairs"][0]["id"]}
    lorry.environment["LORRY_TRAINING_REDACT"] = "false"
    code, told, complained = await lorry("review", "ada", "--drop", review["pairs"][1]["id"])
    assert (code, told) == (4, ""), complained
    assert "other redaction" in complained
    del lorry.environment["LORRY_TRAINING_REDACT"]
    assert (await lorry.json("review", "ada"))["digest"] == again["digest"]


async def test_a_command_does_not_pay_for_what_a_job_pays_for(
    lorry: Lorry, server: OpenAIServer, database: Database, tmp_path: Path
) -> None:
    (job,) = await lorry.json("jobs", "submit", "ada", *REMOTE)
    code, _, complained = await lorry("build-dataset", "ada", *REMOTE)
    assert code == 4, complained
    assert f"for job {job['id']} already" in complained
    assert not server.bodies
    assert (await lorry.json("build-dataset", "ada"))["question_writer"].startswith("extractive"), "that costs nothing"
    await lorry.json("jobs", "cancel", job["id"])
    assert (await lorry.json("build-dataset", "ada", *REMOTE))["question_writer"] == "openai/1:m"


async def test_a_command_knows_the_batches_of_jobs_and_of_other_writings(database: Database, tmp_path: Path) -> None:
    place = tmp_path / "datasets" / "default" / "ada" / "writing" / "own"
    for folder, batches in ((place, ["mine"]), (place.with_name("other"), ["b1", "b2"])):
        folder.mkdir(parents=True)
        (folder / "state.json").write_text(json.dumps({"batches": batches}))
    (place.with_name("damaged")).mkdir()
    (place.with_name("damaged") / "state.json").write_text("{")
    async with database.transaction() as session:
        await TranscriptStore(session).add("default", "ann", talks("ann"))
    job = await Jobs(database).submit(Submission(tenant="default", user="ann", base="b"))
    async with database.transaction() as session:
        await WritingRepository(session).keep(job.id, state={"batches": ["b3"]})
    plan = Plan(settings=LorrySettings(home=tmp_path), home=Home.open(tmp_path))
    stack = Stack(plan, base_directory=Path, on_state=quiet, on_wait=print)
    async with RegistryClient(url="http://127.0.0.1:1", token="t") as registry:
        context = Context(plan=plan, stack=stack, database=database, registry=registry)
        assert await claimed_batches(context, place) == {"b1", "b2", "b3"}
