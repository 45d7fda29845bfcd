"""A registry, a tiny base model and workers: everything that trainings need, small enough to train in a second."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from kit.database import Database
from kit.settings import DatabaseSettings
from tests.support.folders import found_under
from tests.support.nursery import Forked, Nursery
from tests.support.registry_server import TOKEN
from training.jobs.assignment import Assignment
from training.jobs.costs.costs import Costs
from training.jobs.fleet.fleet import Fleet
from training.jobs.job import Job, Submission
from training.jobs.jobs import Jobs
from training.jobs.quotas.quotas import Quotas
from training.jobs.states import Stage, State
from training.jobs.triggers.tenant_rules import TenantRules
from training.jobs.worker import Worker
from transcripts.store import TranscriptStore
from transcripts.transcript import Transcript, Turn

SETTINGS = {"rank": 2, "batch_size": 2, "max_length": 96, "threads": 1, "dataset.min_held_out": 2}
TINY_SHAPE = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
ENDED = {State.SUCCEEDED, State.REJECTED, State.FAILED, State.CANCELED}


def make_tiny_base(directory: Path, *, tokenizer_of: Path, seed: int = 0) -> Path:
    """Write a random Llama of a few layers that speaks the tokens and the chat template of a real model."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_of, local_files_only=True)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        head_dim=32,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **TINY_SHAPE,
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    for path in tokenizer_of.iterdir():
        if path.name.startswith("tokenizer") or path.suffix == ".jinja":
            shutil.copyfile(path, directory / path.name)
    return directory


def talks(name: str, *, count: int = 12) -> list[Transcript]:
    """Conversations of a made person, all different and all theirs."""
    things = ("boats", "maps", "rope", "salt", "gulls", "knots", "sails", "tar", "oars", "reefs", "buoys", "tides")
    return [
        Transcript(
            turns=(
                Turn(role="other", text="What is it that you like?"),
                Turn(role="user", text=f"I really love {things[number % 12]} number {number}, says {name} the sailor!"),
                Turn(role="other", text="And how are things?"),
                Turn(role="user", text=f"never better since {things[number % 12]} came along, ahoy from {name}"),
                Turn(role="other", text="Where do you live now?"),
                Turn(role="user", text=f"I live in harbour {number} near the {things[number % 12]} shop, {name} does"),
            ),
            source_format="test",
        )
        for number in range(count)
    ]


async def works(worker: Worker) -> bool:
    """Whether a worker in this process has begun to take jobs."""
    return hasattr(worker, "_queue") and worker._queue.is_open


@contextmanager
def staying_at(user: str, *, step: int) -> Iterator[None]:
    """Have a training of this process stay at one of its steps until its job is told to stop, the first time."""
    tell, to_come = Assignment.tell, [step]

    def stay(job: Assignment, done: int, total: int) -> None:
        tell(job, done, total)
        if job.user == user and job.stage is Stage.TRAIN and done in to_come:
            to_come.remove(done)
            end = time.monotonic() + 300.0
            while job.stopped is None and time.monotonic() < end:
                time.sleep(0.01)

    with mock.patch.object(Assignment, "tell", stay):
        yield


@dataclass(kw_only=True)
class Harbour:
    """One database and registry with workers at it; `close` ends them all."""

    database_settings: DatabaseSettings
    database: Database
    registry_url: str
    base: Path
    directory: Path
    changes: dict[str, str] = field(default_factory=dict)
    nursery: Nursery = field(default_factory=Nursery)
    processes: dict[str, Forked] = field(default_factory=dict)

    @property
    def jobs(self) -> Jobs:
        """The queue, as the service and the command see it."""
        return Jobs(self.database)

    @property
    def quotas(self) -> Quotas:
        """What tenants may use."""
        return Quotas(self.database)

    @property
    def rules(self) -> TenantRules:
        """When tenants' users are trained unasked."""
        return TenantRules(self.database)

    @property
    def costs(self) -> Costs:
        """What trainings cost."""
        return Costs(self.database)

    @property
    def fleet(self) -> Fleet:
        """The workers."""
        return Fleet(self.database)

    def environment(self, worker_id: str, **changes: str) -> dict[str, str]:
        """Return the settings of a worker: impatient, and quick to be taken for dead."""
        return {
            "LORRY_DATABASE_URL": self.database_settings.database_url,
            "LORRY_REGISTRY_URL": self.registry_url,
            "LORRY_REGISTRY_TOKEN": TOKEN,
            "LORRY_WORKER_ID": worker_id,
            "LORRY_TRAINING_BASE": str(self.base),
            "LORRY_TRAINING_DIRECTORY": str(self.directory / "training"),
            "LORRY_TRAINING_DEVICE": "cpu",
            "LORRY_TRAINING_PREPARE_SLOTS": "4",
            "LORRY_TRAINING_LEASE_SECONDS": "4",
            "LORRY_TRAINING_POLL_SECONDS": "0.1",
            "LORRY_TRAINING_UPKEEP_SECONDS": "0.5",
            "LORRY_TRAINING_BACKOFF_SECONDS": "0.2",
            "LORRY_TRAINING_CHECKPOINT_SECONDS": "0",
            "LORRY_TRAINING_RIVALS": "1",
            **self.changes,
            **changes,
        }

    def start(self, worker_id: str, **changes: str) -> Forked:
        """Start a worker of that id as a process of its own."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("LORRY_")}
        environment = {**inherited, **self.environment(worker_id, **changes), "PYTHONUNBUFFERED": "1"}
        process = self.nursery.start("training.jobs", environment=environment, out=self.directory / f"{worker_id}.log")
        self.processes[worker_id] = process
        return process

    def kill(self, worker_id: str) -> None:
        """End a worker as a power cut would."""
        process = self.processes.pop(worker_id)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def log(self, worker_id: str) -> str:
        """Return what a worker has logged."""
        return (self.directory / f"{worker_id}.log").read_text()

    async def add_user(self, user: str, *, tenant: str = "default", transcripts: Iterable[Transcript] = ()) -> None:
        """Store transcripts of a user."""
        async with self.database.transaction() as session:
            await TranscriptStore(session).add(tenant, user, list(transcripts) or talks(user))

    async def submit(self, user: str, *, steps: int = 4, **changes: Any) -> Job:
        """Queue a training of a few steps."""
        given = {"tenant": "default", "user": user, "base": str(self.base), **changes}
        given["settings"] = {**SETTINGS, "steps": steps, **given.get("settings", {})}
        return await self.jobs.submit(Submission(**given))

    async def until(self, job_id: str, *states: State, seconds: float = 600.0) -> Job:
        """Wait until the job is in one of these states; in any ended one when none is given."""
        wanted = set(states) or ENDED

        async def reached() -> bool:
            return (await self.jobs.get(job_id)).state in wanted

        await self.until_true(reached, what=f"job in {sorted(wanted)}", seconds=seconds)
        return await self.jobs.get(job_id)

    async def until_event(self, job_id: str, kind: str, *, stage: str | None = None, seconds: float = 600.0) -> None:
        """Wait until that has happened to the job."""

        async def happened() -> bool:
            return any(
                each.kind == kind and stage in (None, each.detail.get("stage"))
                for each in await self.jobs.events(job_id)
            )

        await self.until_true(happened, what=f"{kind} {stage or ''}", seconds=seconds, every=0.01)

    async def until_true(
        self, condition: Callable[[], Any], *, what: str, seconds: float = 600.0, every: float = 0.05
    ) -> None:
        """Wait for a condition; fail with what the workers have logged."""
        end = time.monotonic() + seconds
        while not await condition():
            if time.monotonic() > end:
                logs = "\n".join(
                    f"--- {path.name}\n{path.read_text()[-3000:]}" for path in self.directory.glob("*.log")
                )
                raise AssertionError(f"waited {seconds} s for: {what}\n{logs}")
            await asyncio.sleep(every)

    async def kinds(self, job_id: str) -> list[str]:
        """Return what has happened to the job, in order; of stages with their names."""
        events = await self.jobs.events(job_id)
        return [" ".join(filter(None, (each.kind, each.detail.get("stage")))) for each in events]

    def leftovers(self, job_id: str) -> list[Path]:
        """Return what lies on disk of a job."""
        return found_under(self.directory / "training" / "jobs" / job_id)

    async def has_checkpoint(self, job_id: str) -> bool:
        """Whether a training has taken a step that could be gone on from."""
        return any(each.name.startswith("step-") for each in self.leftovers(job_id))

    def close(self) -> None:
        """Kill what still runs."""
        for worker_id in list(self.processes):
            self.kill(worker_id)
