"""The training service over real HTTP; no worker is needed to ask for things."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import asyncpg
import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import make_url

from kit.database import Database
from kit.settings import DatabaseSettings
from lorry.local.postgres import database_url
from registry.client import RegistryClient
from tests.support.adapters import BASE, BASE_CONFIG
from tests.support.databases import rename
from tests.support.registry_server import TOKEN as REGISTRY_TOKEN
from tests.support.registry_server import serving
from tests.support.training_jobs import talks
from tests.support.waiting import until
from training.base_models import DEFAULT_BASE
from training.jobs.campaigns.campaigns import Campaigns
from training.jobs.campaigns.repository import CampaignRepository
from training.jobs.costs.repository import CostRepository
from training.jobs.health.repository import Health, HealthRepository
from training.jobs.job import Submission
from training.jobs.jobs import Jobs
from training.jobs.record.repository import RecordRepository
from training.jobs.repository import JobRepository
from training.jobs.settings import TrainingServiceSettings
from training.jobs.states import Stage, State
from training.service.app import create_app
from transcripts.store import TranscriptStore

TOKEN = "a-token-for-trainings"
USER = "/v1/tenants/default/users/ann/trainings"


@pytest.fixture
async def service(
    database_settings: DatabaseSettings, database: Database, registry_url: str
) -> AsyncIterator[httpx.AsyncClient]:
    """A client with the service's token; ann has transcripts, and the registry knows no base."""
    async with database.transaction() as session:
        await TranscriptStore(session).add("default", "ann", talks("ann"))
    settings = TrainingServiceSettings(
        **database_settings.model_dump(),
        training_token=SecretStr(TOKEN),
        training_events_seconds=0.05,
        registry_url=registry_url,
        registry_token=SecretStr(REGISTRY_TOKEN),
    )
    async with serving(create_app(settings)) as url:
        headers = {"authorization": f"Bearer {TOKEN}"}
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30) as client:
            yield client


async def test_a_job_is_submitted_shown_and_listed(service: httpx.AsyncClient) -> None:
    answer = await service.post(USER, json={"settings": {"steps": 3}, "priority": 7, "why": "asked for"})
    assert answer.status_code == 201
    job = answer.json()
    assert (job["state"], job["user_id"], job["priority"], job["why"]) == ("queued", "ann", 7, "asked for")
    assert (await service.get(f"/v1/trainings/{job['id']}")).json() == {**job, "dataset": None}
    assert (await service.get("/v1/trainings", params={"tenant": "default"})).json()["jobs"] == [job]
    assert (await service.get("/v1/trainings", params={"state": "running"})).json()["jobs"] == []


async def test_a_job_shows_what_is_kept_of_its_dataset(service: httpx.AsyncClient, database: Database) -> None:
    job = (await service.post(USER, json={})).json()["id"]
    found = {"digest": "d", "counts": {"train": 2}, "redacted": {}, "quality": {"kept": 2, "nats": {"< 1": 2}}}
    async with database.transaction() as session:
        await RecordRepository(session).add_stage(job, Stage.DATASET, result=found, seconds=1.0)
    assert (await service.get(f"/v1/trainings/{job}")).json()["dataset"] == found
    assert (await service.get(f"/v1/trainings/{job}", params={"tenant": "other"})).status_code == 404


async def test_one_training_per_user_at_a_time(service: httpx.AsyncClient) -> None:
    first = (await service.post(USER, json={})).json()
    answer = await service.post(USER, json={})
    assert answer.status_code == 409
    assert answer.json()["type"] == "urn:lorry:problem:training-active"
    assert answer.json()["job_id"] == first["id"]
    await service.post(f"/v1/trainings/{first['id']}/cancel")
    assert (await service.post(USER, json={})).status_code == 201


async def test_of_many_submissions_at_once_one_is_taken(service: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(*(service.post(USER, json={}) for _ in range(12)))
    assert sorted(answer.status_code for answer in answers) == [201, *[409] * 11]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"settings": {"stpes": 3}}, "stpes"),
        ({"settings": {"steps": 0}}, "steps"),
        ({"settings": {"base": "other"}}, "base"),
        ({"priority": 1001}, "body.priority"),
        ({"base": ""}, "body.base"),
        ({"adapter": "a/b"}, "body.adapter"),
        ({"colour": 1}, "body.colour"),
    ],
)
async def test_a_request_that_cannot_be_met_names_the_field(
    service: httpx.AsyncClient, body: dict[str, object], field: str
) -> None:
    answer = await service.post(USER, json=body)
    assert answer.status_code == 422
    problem = answer.json()
    assert field in (problem.get("field"), *(each["field"] for each in problem.get("errors", [])))


async def test_nobody_without_transcripts_is_queued(service: httpx.AsyncClient) -> None:
    answer = await service.post("/v1/tenants/default/users/nobody/trainings", json={})
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:lorry:problem:nothing-to-train-on")


@pytest.mark.parametrize("header", [{}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {TOKEN}"}])
async def test_every_route_asks_for_the_token(service: httpx.AsyncClient, header: dict[str, str]) -> None:
    async with httpx.AsyncClient(timeout=60, base_url=service.base_url, headers=header) as stranger:
        schema = (await stranger.get("/openapi.json")).json()
        for path, operations in schema["paths"].items():
            for verb in operations:
                if path.startswith("/v1"):
                    url = path.replace("{job_id}", "j" + 32 * "0").replace("{campaign_id}", "c" + 32 * "0")
                    answer = await stranger.request(verb, url.replace("{tenant}", "t").replace("{user}", "u"), json={})
                    assert answer.status_code == 401, f"{verb} {path}"
                    assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_queued_job_is_paused_resumed_canceled_and_retried(service: httpx.AsyncClient) -> None:
    job = f"/v1/trainings/{(await service.post(USER, json={})).json()['id']}"
    for verb, state in (("pause", "paused"), ("resume", "queued"), ("cancel", "canceled"), ("retry", "queued")):
        answer = await service.post(f"{job}/{verb}")
        assert (answer.status_code, answer.json()["state"]) == (200, state)
    refused = await service.post(f"{job}/resume")
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:lorry:problem:illegal-job-transition")
    events = (await service.get(f"{job}/events")).json()["events"]
    assert [each["kind"] for each in events] == ["submitted", "paused", "resumed", "canceled", "retried"]
    assert (await service.get(f"{job}/events", params={"after": events[2]["id"]})).json()["events"] == events[3:]


async def test_another_tenants_job_is_not_there(service: httpx.AsyncClient) -> None:
    job = (await service.post(USER, json={})).json()["id"]
    for method, path in (("GET", ""), ("GET", "/events"), ("POST", "/cancel"), ("POST", "/retry")):
        answer = await service.request(method, f"/v1/trainings/{job}{path}", params={"tenant": "other"})
        assert answer.status_code == 404
    assert (await service.get(f"/v1/trainings/{job}")).json()["state"] == "queued"


async def test_events_are_streamed_until_the_job_has_ended(service: httpx.AsyncClient, database: Database) -> None:
    job = (await service.post(USER, json={})).json()["id"]
    seen: list[str] = []
    frames = asyncio.create_task(_frames(service, job, seen=seen))
    await until(lambda: seen == ["event"] or frames.done())
    async with database.transaction() as session:
        progress = {"stage": "train", "done": 3, "total": 9, "share": 0.4, "eta_seconds": 5.0}
        await JobRepository(session).update(job, {"progress": progress})
    await until(lambda: seen == ["event", "progress"] or frames.done())
    await asyncio.sleep(0.2)  # a few looks: what has not changed is not said again
    async with database.transaction() as session:
        await JobRepository(session).update(job, {"progress": None})  # as when a run has ended
    await asyncio.sleep(0.2)
    await Jobs(database).cancel(job)
    found = await asyncio.wait_for(frames, 120)
    assert [name for name, _, _ in found] == ["event", "progress", "event", "end"]
    assert found[1][2] == progress
    assert found[-1][2]["state"] == "canceled"
    again = await _frames(service, job, last=found[0][1])
    assert [(name, data.get("kind")) for name, _, data in again] == [("event", "canceled"), ("end", None)]


async def _frames(
    service: httpx.AsyncClient, job: str, *, last: str = "", seen: list[str] | None = None
) -> list[tuple[str, str, dict[str, object]]]:
    """Read the stream to its end; `seen` gets the name of each frame when it comes."""
    headers = {"accept": "text/event-stream", **({"last-event-id": last} if last else {})}
    async with service.stream("GET", f"/v1/trainings/{job}/events", headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        read = []
        async for line in answer.aiter_lines():
            read.append(line)
            if seen is not None and line.startswith("event: "):
                seen.append(line.removeprefix("event: "))
    frames = []
    text = "\n".join(read)
    for block in text.strip().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        frames.append((lines["event"], lines.get("id", ""), json.loads(lines["data"])))
    return frames


async def test_a_tenants_day_is_used_up(service: httpx.AsyncClient, database: Database) -> None:
    quota = "/v1/tenants/default/training-quota"
    assert (await service.put(quota, json={"max_daily": 1})).json()["max_daily"] == 1
    first = (await service.post(USER, json={})).json()["id"]
    await service.post(f"/v1/trainings/{first}/cancel")
    refused = await service.post(USER, json={})
    assert (refused.status_code, refused.json()["type"]) == (429, "urn:lorry:problem:quota-exhausted")
    assert (await service.put(quota, json={"max_daily": -1})).status_code == 422
    await service.put(quota, json={})
    assert (await service.post(USER, json={})).status_code == 201


async def test_a_tenants_month_is_used_up(service: httpx.AsyncClient, database: Database) -> None:
    async with database.transaction() as session:
        cost = {"job_id": "j1", "kind": "write", "is_estimate": False, "tenant": "default", "user_id": "ann"}
        await CostRepository(session).keep({**cost, "dollars": 2.5, "input_tokens": 10})
        await CostRepository(session).keep({**cost, "is_estimate": True, "dollars": 99.0})
    await service.put("/v1/tenants/default/training-quota", json={"max_monthly_dollars": 2.5})
    assert (await service.post(USER, json={})).status_code == 429
    sums = (await service.get("/v1/training-costs", params={"by": "user_id"})).json()["costs"]
    assert [(each["of"], each["is_estimate"], each["dollars"]) for each in sums] == [
        ("ann", False, 2.5),
        ("ann", True, 99.0),
    ]


async def test_rules_say_who_is_stale_and_why(service: httpx.AsyncClient) -> None:
    rules = {"enabled": True, "min_words": 10, "schedule": "0 3 * * 1", "settings": {"start": "shared/common"}}
    stored = (await service.put("/v1/tenants/default/training-rules", json=rules)).json()
    assert (await service.get("/v1/tenants/default/training-rules")).json() == stored
    assert stored["settings"] == rules["settings"]
    (user,) = (await service.get("/v1/tenants/default/training-staleness")).json()["users"]
    assert user["trigger"] == "volume"
    assert "no adapter" in user["reason"]
    bad = await service.put("/v1/tenants/default/training-rules", json={"schedule": "every monday"})
    assert (bad.status_code, bad.json()["field"]) == (422, "schedule")
    bad = await service.put("/v1/tenants/default/training-rules", json={"settings": {"stepps": 3}})
    assert (bad.status_code, bad.json()["field"]) == (422, "stepps")


async def test_a_campaign_is_begun_paused_and_aborted(service: httpx.AsyncClient, registry_url: str) -> None:
    refused = await service.post("/v1/tenants/default/campaigns", json={"base": "next", "per_hour": 10})
    assert (refused.status_code, refused.json()["field"]) == (422, "base")
    assert refused.json()["known"] == [DEFAULT_BASE]
    async with RegistryClient(url=registry_url, token=REGISTRY_TOKEN) as registry:
        await registry.register_base(BASE.model_copy(update={"id": "next"}), config=BASE_CONFIG)
    begun = (await service.post("/v1/tenants/default/campaigns", json={"base": "next", "per_hour": 10})).json()
    assert (begun["state"], begun["users"], begun["counts"]) == ("running", 1, {"waiting": 1})
    path = f"/v1/campaigns/{begun['id']}"
    assert (await service.post(f"{path}/pause")).json()["state"] == "paused"
    assert (await service.post(f"{path}/pause")).status_code == 409
    assert (await service.post(f"{path}/resume")).json()["state"] == "running"
    assert (await service.post(f"{path}/abort")).json()["state"] == "aborted"
    assert (await service.get("/v1/campaigns")).json()["campaigns"][0]["state"] == "aborted"
    bad = await service.post("/v1/tenants/default/campaigns", json={"base": "next", "users": ["nobody"]})
    assert (bad.status_code, bad.json()["field"]) == (422, "users")


async def test_a_service_without_a_registry_begins_no_campaign(database_settings: DatabaseSettings) -> None:
    settings = TrainingServiceSettings(**database_settings.model_dump(), training_token=SecretStr(TOKEN))
    headers = {"authorization": f"Bearer {TOKEN}"}
    async with (
        serving(create_app(settings)) as url,
        httpx.AsyncClient(timeout=60, base_url=url, headers=headers) as client,
    ):
        refused = await client.post("/v1/tenants/default/campaigns", json={"base": DEFAULT_BASE})
    assert refused.status_code == 503
    assert "set LORRY_REGISTRY_URL" in refused.json()["detail"]


async def test_listing_goes_on_after_the_last_job_of_a_page(service: httpx.AsyncClient) -> None:
    made = []
    for _ in range(5):
        job = (await service.post(USER, json={})).json()["id"]
        await service.post(f"/v1/trainings/{job}/cancel")
        made.append(job)
    found: list[str] = []
    before: dict[str, str] = {}
    while True:
        page = (await service.get("/v1/trainings", params={"limit": 2, **before})).json()
        found += [job["id"] for job in page["jobs"]]
        if page["next_before"] is None:
            break
        before = {"before": page["next_before"]}
    assert found == made[::-1]


async def test_metrics_count_jobs_by_state_and_name_nobody(service: httpx.AsyncClient) -> None:
    await service.post(USER, json={})
    text = (await service.get("/metrics")).text
    assert f'lorry_training_jobs{{state="{State.QUEUED.value}"}} 1.0' in text
    assert 'lorry_training_workers{state="alive"} 0.0' in text
    assert "lorry_training_database_up 1.0" in text
    assert "ann" not in text.replace("canceled", "")


async def test_metrics_say_what_a_month_costs_and_leave_estimates_out(
    service: httpx.AsyncClient, database: Database
) -> None:
    cost = {"job_id": "j1", "tenant": "default", "user_id": "ann", "is_estimate": False}
    async with database.transaction() as session:
        for more in (
            {"kind": "write", "dollars": 2.5},
            {"kind": "train", "device_seconds": 90.0},
            {"kind": "write", "dollars": 40.0, "is_estimate": True},
        ):
            await CostRepository(session).keep({**cost, **more})
    text = (await service.get("/metrics")).text
    assert "lorry_training_month_dollars 2.5" in text
    assert 'lorry_training_month_device_seconds{kind="train"} 90.0' in text
    assert 'lorry_training_month_device_seconds{kind="evaluate"} 0.0' in text


async def test_metrics_tell_what_is_wrong_and_of_whom_nobody(service: httpx.AsyncClient, database: Database) -> None:
    before = (await service.get("/metrics")).text
    assert "lorry_training_spent_share 0.0" in before
    assert "lorry_training_recent_failures{" not in before
    async with database.transaction() as session:
        await TranscriptStore(session).add("default", "bob", talks("bob"))
        cost = {"job_id": "j1", "kind": "write", "is_estimate": False, "tenant": "default", "user_id": "ann"}
        await CostRepository(session).keep({**cost, "dollars": 3.0})
    jobs, campaigns = Jobs(database), Campaigns(database)
    for user, code in (("ann", "workers-died"), ("bob", "disk-full")):
        job = await jobs.submit(Submission(tenant="default", user=user, base="b"))
        async with database.transaction() as session:
            repository = JobRepository(session)
            ended = {"state": State.FAILED, "error": {"code": code}, "ended_at": await repository.now()}
            await repository.update(job.id, ended)
    campaign = await campaigns.begin("default", base="next", known={"next"}, per_hour=60.0)
    await service.put("/v1/tenants/default/training-quota", json={"max_monthly_dollars": 4.0})
    health = await examine(database)
    assert health == Health(
        failures={"disk-full": 1, "workers-died": 1}, poison_users=1, stalled_campaigns=0, spent_share=0.75
    )
    async with database.transaction() as session:
        for user in ("ann", "bob"):
            at = await JobRepository(session).now() - timedelta(hours=1, seconds=90)
            values = {"submitted_at": at, "job_id": "j1" if user == "ann" else None}
            await CampaignRepository(session).set_user(campaign.id, user, values)
    assert (await examine(database)).stalled_campaigns == 1
    await campaigns.pause(campaign.id)
    assert (await examine(database)).stalled_campaigns == 0


async def examine(database: Database) -> Health:
    async with database.reading() as session:
        return await HealthRepository(session).examine()


async def test_every_route_documents_its_refusals(service: httpx.AsyncClient) -> None:
    schema = (await service.get("/openapi.json")).json()
    for path, operations in schema["paths"].items():
        for verb, operation in operations.items():
            if not path.startswith("/v1"):
                continue
            assert {"401", "422", "503"} <= set(operation["responses"]), f"{verb} {path}"
            assert operation.get("description"), f"{verb} {path} says nothing"
            if "{job_id}" in path or "{campaign_id}" in path:
                assert "404" in operation["responses"], f"{verb} {path}"


async def test_a_stream_outlives_a_database_that_is_away(
    service: httpx.AsyncClient, database: Database, postgres_directory: Path
) -> None:
    name = str(make_url(database.settings.database_url).database)
    server = await asyncpg.connect(database_url(postgres_directory, name="postgres").replace("+asyncpg", ""))
    job = (await service.post(USER, json={})).json()["id"]
    lines: list[str] = []
    away = False
    try:
        headers = {"accept": "text/event-stream"}
        async with service.stream("GET", f"/v1/trainings/{job}/events", headers=headers) as answer:
            async for line in answer.aiter_lines():
                lines.append(line)
                if lines.count("event: event") == 1 and not away and not line:
                    await rename(server, name, f"{name}_away")
                    away = True
                if "does not answer" in line and lines.count(line) == 1:
                    await rename(server, f"{name}_away", name)
                    await Jobs(database).cancel(job)
    finally:
        await server.close()
    assert ": the database does not answer; waiting for it" in lines
    assert [line for line in lines if line.startswith("event: ")][-2:] == ["event: event", "event: end"]
