"""A worker with a real database, registry, trainer and evaluator, on a base of two layers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from registry.client import RegistryClient
from registry.manifest import Owner
from tests.support.registry_server import TOKEN
from tests.support.training_jobs import Harbour
from training.jobs.states import State
from training.jobs.worker import Worker

Working = Callable[..., AbstractAsyncContextManager[Worker]]


async def test_a_job_goes_from_transcripts_to_a_version_and_leaves_nothing_behind(
    harbour: Harbour, working: Working
) -> None:
    await harbour.add_user("ann")
    job = await harbour.submit("ann", steps=6)
    async with working():
        ended = await harbour.until(job.id)
    assert ended.state in {State.SUCCEEDED, State.REJECTED}, ended.error
    assert ended.outcome is not None
    async with RegistryClient(url=harbour.registry_url, token=TOKEN) as registry:
        manifest = (await registry.get_version(ended.outcome["version_id"])).manifest
        live = await registry.get_alias(Owner(tenant="default", user="ann"), "profile", "live")
    assert manifest.owner.user == "ann"
    assert (live == manifest.version_id) is ended.outcome["passed"]
    assert harbour.leftovers(job.id) == []
    assert await harbour.kinds(job.id) == [
        "submitted",
        "taken",
        *("stage began snapshot", "stage finished snapshot", "stage began estimate", "stage finished estimate"),
        *("stage began write", "stage finished write", "prepared", "taken"),
        *("stage began dataset", "stage finished dataset", "stage began train", "stage finished train"),
        *("stage began evaluate", "stage finished evaluate", "stage began publish", "stage finished publish"),
        ended.state.value,
    ]
