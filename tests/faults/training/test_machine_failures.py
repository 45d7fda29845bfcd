"""What a job makes of a machine that has no room on its disk or no memory left, while its worker lives on."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from tests.support.nursery import Forked
from tests.support.training_jobs import Harbour
from training.jobs.states import State

pytestmark = pytest.mark.faults
ENDED_WELL = {State.SUCCEEDED, State.REJECTED}
_UNLIMITED = resource.RLIM_INFINITY


def limit(worker: Forked, kind: int, n_bytes: int) -> None:
    """Let a running worker have no more than this of one thing."""
    resource.prlimit(worker.pid, kind, (n_bytes, _UNLIMITED))


def address_space(worker: Forked) -> int:
    """Return how many bytes of address space a worker uses."""
    return int(Path(f"/proc/{worker.pid}/statm").read_text().split()[0]) * resource.getpagesize()


async def test_a_disk_that_is_full_at_a_checkpoint_costs_the_job_an_attempt_and_no_step(harbour: Harbour) -> None:
    await harbour.add_user("ann")
    job = await harbour.submit("ann", steps=300)
    worker = harbour.start("one", LORRY_TRAINING_ATTEMPTS="50")

    async def saved() -> bool:
        return any(path.name == "checkpoints" for path in harbour.leftovers(job.id))

    await harbour.until_true(saved, what="a checkpoint", every=0.01)
    limit(worker, resource.RLIMIT_FSIZE, 20_000)
    await harbour.until_event(job.id, "will be tried again")
    again = next(each for each in await harbour.jobs.events(job.id) if each.kind == "will be tried again")
    assert (again.detail["error"]["code"], again.detail["error"]["stage"]) == ("disk-full", "train")
    limit(worker, resource.RLIMIT_FSIZE, _UNLIMITED)
    ended = await harbour.until(job.id)
    assert ended.state in ENDED_WELL, ended.error
    assert worker.poll() is None, "the worker has lived through it"
    results = [each.detail for each in await harbour.jobs.events(job.id) if each.kind == "stage finished"]
    assert [each["stage"] for each in results].count("train") == 1


async def test_a_training_that_gets_no_memory_fails_its_user_and_the_others_go_on(harbour: Harbour) -> None:
    for user in ("ann", "bob"):
        await harbour.add_user(user)
    worker = harbour.start("one", LORRY_TRAINING_ATTEMPTS="1")
    ann = await harbour.submit("ann", steps=100_000)

    async def trains() -> bool:
        progress = (await harbour.jobs.get(ann.id)).progress
        return progress is not None and progress["stage"] == "train" and progress["done"] >= 1

    await harbour.until_true(trains, what="a step")
    limit(worker, resource.RLIMIT_AS, address_space(worker) + (8 << 20))  # a piece of its logits is larger
    failed = await harbour.until(ann.id)
    limit(worker, resource.RLIMIT_AS, _UNLIMITED)
    assert failed.state is State.FAILED
    assert failed.error is not None
    assert (failed.error["code"], failed.error["stage"]) == ("out-of-memory", "train")
    assert "batch_size" in failed.error["message"]
    bob = await harbour.submit("bob")
    assert (await harbour.until(bob.id)).state in ENDED_WELL
    assert worker.poll() is None, "the worker has lived through it"
