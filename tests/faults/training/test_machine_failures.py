"""What a job makes of a machine that has no room on its disk or no memory left, while its worker lives on."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from tests.support.nursery import WorkerProcess
from tests.support.training_jobs import Harbour
from training.jobs.states import State

pytestmark = pytest.mark.faults
ENDED_WELL = {State.SUCCEEDED, State.REJECTED}
_UNLIMITED = resource.RLIM_INFINITY


def limit(worker: WorkerProcess, kind: int, n_bytes: int) -> None:
    """Let a running worker have no more than this of one thing."""
    resource.prlimit(worker.pid, kind, (n_bytes, _UNLIMITED))


def address_space(worker: WorkerProcess) -> int:
    """Return how many bytes of address space a worker uses."""
    return int(Path(f"/proc/{worker.pid}/statm").read_text().split()[0]) * resource.getpagesize()


async def test_a_disk_that_is_full_at_a_checkpoint_costs_the_job_an_attempt_and_no_step(harbour: Harbour) -> None:
    await harbour.add_user("ann")
    job = await harbour.submit("ann", steps=30)
    worker = harbour.start("one")

    async def saved() -> bool:
        return any(path.name == "checkpoints" for path in harbour.leftovers(job.id))

    await harbour.until_true(saved, what="a checkpoint", every=0.01)
    limit(worker, resource.RLIMIT_FSIZE, 20_000)
    await harbour.until_event(job.id, "will be tried again")
    (again,) = [each for each in await harbour.jobs.events(job.id) if each.kind == "will be tried again"]
    assert (again.detail["error"]["code"], again.detail["error"]["stage"]) == ("disk-full", "train")
    limit(worker, resource.RLIMIT_FSIZE, _UNLIMITED)
    ended = await harbour.until(job.id)
    assert ended.state in ENDED_WELL, ended.error
    assert worker.poll() is None, "the worker has lived through it"
    results = [each.detail for each in await harbour.jobs.events(job.id) if each.kind == "stage finished"]
    assert [each["stage"] for each in results].count("train") == 1


async def test_a_user_whose_training_does_not_fit_into_memory_fails_and_the_others_go_on(harbour: Harbour) -> None:
    for user in ("ann", "bob", "cid"):
        await harbour.add_user(user)
    worker = harbour.start("one", LORRY_TRAINING_ATTEMPTS="2")
    warm = await harbour.until((await harbour.submit("bob")).id)
    assert warm.state in ENDED_WELL, warm.error
    limit(worker, resource.RLIMIT_AS, address_space(worker) + (192 << 20))
    greedy = {"batch_size": 256, "max_length": 512, "rank": 64, "replay_share": 1.0}
    ann = await harbour.submit("ann", priority=5, settings=greedy)
    cid = await harbour.submit("cid")
    failed = await harbour.until(ann.id)
    assert failed.state is State.FAILED
    assert failed.error is not None
    assert (failed.error["code"], failed.attempts) == ("out-of-memory", 2)
    assert (await harbour.until(cid.id)).state in ENDED_WELL
    assert worker.poll() is None, "the worker has lived through it"
