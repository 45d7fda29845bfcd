"""Workers are killed with SIGKILL in every stage; others, or they themselves, go on."""

from __future__ import annotations

import pytest

from registry.client import RegistryClient
from registry.manifest import Owner
from tests.support.registry_server import TOKEN
from tests.support.training_jobs import Harbour
from training.jobs.states import STAGES, State

pytestmark = pytest.mark.faults
ENDED_WELL = {State.SUCCEEDED, State.REJECTED}


async def versions(harbour: Harbour, user: str) -> int:
    async with RegistryClient(url=harbour.registry_url, token=TOKEN) as registry:
        return len(await registry.list_versions(Owner(tenant="default", user=user), "profile"))


async def test_a_worker_killed_in_every_stage_of_a_job_goes_on_where_it_was(harbour: Harbour) -> None:
    await harbour.add_user("ann")
    job = await harbour.submit("ann", steps=40)
    for stage in ("snapshot", "write", "dataset", "train", "evaluate", "publish"):
        harbour.start("one")
        await harbour.until_event(job.id, "stage began", stage=stage)
        harbour.kill("one")
    harbour.start("one")
    ended = await harbour.until(job.id)
    assert ended.state in ENDED_WELL, ended.error
    kinds = await harbour.kinds(job.id)
    for stage in (each for stages in STAGES.values() for each in stages):
        assert kinds.count(f"stage finished {stage}") == 1, kinds
    assert await versions(harbour, "ann") == 1
    assert harbour.leftovers(job.id) == []
