"""A registry and an engine of a test module's own, with a faulty S3 behind them, and other users who must not notice.

    async with pool_rig(…, engine={"LORRY_MAX_LORAS": "2"}) as rig:
        ada = await rig.publish(directory, user="ada")
        async with rig.others(), rig.counted() as happened:
            ...                                     # the fault; the others go on asking all the while
        assert happened.failures == {"damaged": 1}  # what /metrics says of it

The parts are the production's own processes (`Stack`), so that each can be killed and started again (`Revivable`).
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import httpx
from prometheus_client.parser import text_string_to_metric_families

from kit.settings import StorageSettings
from kit.storage import ObjectStorage
from lorry.context import quiet
from lorry.home import Home
from lorry.local.part import Part
from lorry.local.plan import Plan
from lorry.local.postgres import create_database, database_url
from lorry.local.stack import Stack, open_stack
from lorry.settings import LorrySettings
from registry.client import RegistryClient, draft_from_directory
from registry.manifest import BaseIdentity, Manifest, Owner
from serving.engine.installer import SEALED_FILE
from tests.support.faulty_s3 import FaultyS3, faulty_s3
from tests.support.folders import found_under
from tests.support.ports import free_port_block
from tests.support.revival import Revivable
from tests.support.waiting import until
from training.base_models import DEFAULT_BASE

Value = TypeVar("Value")
PROMPT = "My name is"
ENGINE = {
    "LORRY_MAX_LORAS": "2",
    "LORRY_MAX_CPU_LORAS": "8",
    "LORRY_MAX_MODEL_LEN": "512",
    "LORRY_KV_CACHE_GIB": "1",
    "LORRY_HEARTBEAT_SECONDS": "0.5",
    "LORRY_REGISTRY_TIMEOUT_SECONDS": "20",
    "LORRY_REFUSAL_TTL_SECONDS": "5",
}
"""Few slots and little memory, so that adapters come and go; and short memories, so that tests need not wait."""
_COUNTS = ("_total", "_count")
_REFUSAL_SECONDS = 5.2  # a little longer than the engine remembers a refusal


@dataclass(frozen=True, kw_only=True)
class RigPlan(Plan):
    """A plan whose engine is told more, and runs inside another command."""

    engine: Mapping[str, str]
    wrapper: tuple[str, ...] = ()

    def part(self, name: str, *, base_directory: Path) -> Part:
        """Return how to run one part."""
        part = super().part(name, base_directory=base_directory)
        if name != "engine":
            return part
        return replace(part, argv=(*self.wrapper, *part.argv), environment={**part.environment, **self.engine})


Series = tuple[str, frozenset[tuple[str, str]]]
"""A series of /metrics: its name, and its labels with their values."""


@dataclass
class Happened:
    """How our counters and histograms' counts changed; what did not change is left out."""

    changes: dict[Series, float] = field(default_factory=dict)

    @property
    def failures(self) -> dict[str, float]:
        """Loads that failed, by reason."""
        return self.by("reason", "lorry_adapter_load_failures_total")

    @property
    def loads(self) -> dict[str, float]:
        """Loads that ended, by outcome."""
        return self.by("outcome", "lorry_adapter_loads_total")

    @property
    def refusals(self) -> dict[str, float]:
        """Requests for an adapter that were refused, by reason."""
        return self.by("reason", "lorry_adapter_refusals_total")

    @property
    def ended(self) -> dict[str, float]:
        """Requests for an adapter that were ended while they ran, by reason."""
        return self.by("reason", "lorry_adapter_requests_ended_total")

    @property
    def admitted(self) -> float:
        """Requests for an adapter that were admitted."""
        return sum(self.by("tier", "lorry_adapter_requests_total").values())

    def evictions(self, tier: str) -> dict[str, float]:
        """Adapters that left a tier, by reason."""
        return self.by("reason", "lorry_adapter_evictions_total", tier=tier)

    def by(self, label: str, name: str, **where: str) -> dict[str, float]:
        """Return a metric's changes by the values of one label, of the series with these other labels."""
        found: dict[str, float] = {}
        for (series, labels), change in self.changes.items():
            if series == name and labels >= where.items():
                value = dict(labels)[label]
                found[value] = found.get(value, 0.0) + change
        return found


@dataclass
class Others:
    """What other users saw meanwhile: the answers that were not theirs, and how many were, by model."""

    wrong: list[str] = field(default_factory=list)
    answered: Counter[str] = field(default_factory=Counter)

    @property
    def requests(self) -> int:
        """How many of them were for an adapter."""
        return self.answered.total() - self.answered["base"]


class Rig:
    """One registry, one engine, and whoever asks them."""

    def __init__(self, *, plan: RigPlan, stack: Stack, s3: FaultyS3, base_directory: Path) -> None:
        self.plan = plan
        self.stack = stack
        self.s3 = s3
        self.base_directory = base_directory
        self.base = BaseIdentity.of_directory(base_directory, id=DEFAULT_BASE)
        self.registry = Revivable(stack, "registry")
        self.engine = Revivable(stack, "engine", base_directory=base_directory)
        self.storage = ObjectStorage(plan.storage)
        self.registry_client = RegistryClient(url=plan.registry_url, token=plan.registry_token)
        self.http = httpx.AsyncClient(
            base_url=plan.engine_url,
            headers={"authorization": f"Bearer {plan.engine_token}"},
            timeout=300,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        )
        self._crowd: dict[str, str] = {}
        self._verified: dict[str, int] = {}

    @property
    def cache(self) -> Path:
        """The engine's disk cache, as the engine sees it, which may have mounted something there."""
        path = self.plan.home.path / "cache" / "adapters"
        return Path(f"/proc/{self.engine.process.pid}/root{path}") if self.plan.wrapper else path

    async def publish(self, directory: Path, *, user: str, base: BaseIdentity | None = None) -> Manifest:
        """Publish an adapter for a user of the rig's registry."""
        draft = draft_from_directory(directory, owner=Owner(tenant="default", user=user), base=base or self.base)
        manifest = await self.registry_client.publish(directory, draft=draft)
        self._verified[manifest.version_id] = self._reads(manifest.version_id)
        return manifest

    async def ask(self, model: str, *, max_tokens: int = 4, **more: Any) -> httpx.Response:
        """Ask for a completion."""
        body = {"model": model, "prompt": PROMPT, "max_tokens": max_tokens, "temperature": 0, **more}
        return await self.http.post("/v1/completions", json=body)

    async def text(self, model: str, **more: Any) -> str:
        """Return a model's answer; every other end is a failure."""
        answer = await self.ask(model, **more)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["choices"][0]["text"])

    async def meet(self, *models: str) -> None:
        """Let these adapters, and the base, be what `others` ask for; their answers now are their answers then."""
        for model in (*models, "base"):
            self._crowd[model] = await self.text(model)

    @asynccontextmanager
    async def others(self, *, answers: int = 3) -> AsyncIterator[Others]:
        """Ask for every adapter that was met, again and again until the block ends; none of them may notice it.

        Each is asked at least `answers` times; every answer must be the one that it gave when it was met.
        """
        seen, ended = Others(), asyncio.Event()
        asking = [
            asyncio.create_task(self._ask_on(model, text, seen, ended, answers)) for model, text in self._crowd.items()
        ]
        try:
            yield seen
        finally:
            ended.set()
            await asyncio.gather(*asking)
        assert not seen.wrong, seen.wrong[:3]
        assert set(seen.answered) == set(self._crowd)
        assert min(seen.answered.values()) >= answers

    @asynccontextmanager
    async def counted(self) -> AsyncIterator[Happened]:
        """Yield what is filled, when the block ends, with how the counters changed."""
        before, happened = await self.counters(), Happened()
        yield happened
        after = await self.counters()
        changes = {key: after[key] - before.get(key, 0.0) for key in after}
        happened.changes = {key: change for key, change in changes.items() if change}

    async def counters(self) -> dict[Series, float]:
        """Return our counters and histograms' counts."""
        return {series: value for series, value in (await self._series()).items() if series[0].endswith(_COUNTS)}

    async def gauge(self, name: str, **labels: str) -> float:
        """Return one gauge's value."""
        return (await self._series())[name, frozenset(labels.items())]

    async def residents(self) -> dict[str, dict[str, Any]]:
        """Return what the engine says of the adapters in its memory, by version."""
        answer = await self.http.get("/lorry/adapters")
        assert answer.status_code == 200, answer.text
        return {each["version_id"]: each for each in answer.json()["adapters"]}

    async def forget_refusals(self) -> None:
        """Wait until the engine asks again for what it was refused."""
        await asyncio.sleep(_REFUSAL_SECONDS)

    async def until_unused(self, version_id: str, *, within_seconds: float = 30.0) -> None:
        """Wait until no request holds a version."""

        async def is_unused() -> bool:
            return not (await self.residents()).get(version_id, {}).get("leases")

        await until(is_unused, within_seconds=within_seconds)

    async def evict(self, version_id: str, tier: str = "host") -> None:
        """Take a version out of one tier."""
        answer = await self.http.post(f"/lorry/adapters/{version_id}/evict", json={"tier": tier})
        assert answer.status_code == 200, answer.text

    def on_disk(self, version_id: str) -> list[Path]:
        """Return everything on the engine's disk that has a version's name, but locks."""
        return [path for path in found_under(self.cache) if version_id in path.name and path.suffix != ".lock"]

    def sealed(self, version_id: str) -> Path:
        """Return a version's file on the engine's disk."""
        return self.cache / version_id / SEALED_FILE

    def downloads(self, version_id: str) -> int:
        """Return how often a version's object was asked for since the registry verified it."""
        return self._reads(version_id) - self._verified[version_id]

    def _reads(self, version_id: str) -> int:
        return self.s3.count(f"^GET .*{version_id}")

    async def _series(self) -> dict[Series, float]:
        families = text_string_to_metric_families((await self.http.get("/metrics")).text)
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in families
            for sample in family.samples
            if sample.name.startswith("lorry_")
        }

    async def _ask_on(self, model: str, text: str, seen: Others, ended: asyncio.Event, answers: int) -> None:
        asked = 0
        while not ended.is_set() or asked < answers:
            answer = await self.ask(model)
            asked += 1
            if answer.status_code == 200 and answer.json()["choices"][0]["text"] == text:
                seen.answered[model] += 1
            else:
                seen.wrong.append(f"{model}: {answer.status_code} {answer.text[:300]}")
            await asyncio.sleep(0.05)


@asynccontextmanager
async def pool_rig(
    *,
    directory: Path,
    postgres_directory: Path,
    storage: StorageSettings,
    base_directory: Path,
    engine: Mapping[str, str],
    wrapper: tuple[str, ...] = (),
    max_rank: int = 16,
) -> AsyncIterator[Rig]:
    """Run a registry and an engine in an empty home, on a database and a bucket of their own.

    Args:
        directory: the home; short, because a socket's address has to fit.
        postgres_directory: the running PostgreSQL.
        storage: the running object store.
        base_directory: the base model.
        engine: more of the engine's environment.
        wrapper: a command that runs the engine's command.
        max_rank: the largest rank that the registry takes.
    """
    name = f"rig_{uuid.uuid4().hex[:12]}"
    await create_database(postgres_directory, name=name)
    async with faulty_s3(storage.model_copy(update={"s3_bucket": name.replace("_", "-")})) as s3:
        ports = free_port_block(22)
        settings = LorrySettings(
            home=directory,
            port_base=ports,
            gateway_port=ports + 21,
            threads=1,
            base_model=str(base_directory),
            max_lora_rank=max_rank,
            engine_start_seconds=700.0,
            database_url=database_url(postgres_directory, name=name),
            **s3.settings.model_dump(include={f"s3_{key}" for key in _STORAGE_KEYS}),
        )
        plan = RigPlan(settings=settings, home=Home.open(directory), engine={**ENGINE, **engine}, wrapper=wrapper)
        async with (
            open_stack(plan, base_directory=lambda: base_directory, on_state=quiet, on_wait=print) as stack,
            _started(plan, stack, s3, base_directory) as rig,
        ):
            yield rig


_STORAGE_KEYS = ("endpoint_url", "bucket", "region", "access_key_id", "secret_access_key")


@asynccontextmanager
async def _started(plan: RigPlan, stack: Stack, s3: FaultyS3, base_directory: Path) -> AsyncIterator[Rig]:
    await stack.ensure("registry")
    rig = Rig(plan=plan, stack=stack, s3=s3, base_directory=base_directory)
    try:
        async with rig.registry_client, rig.http:
            await rig.registry_client.register_base(rig.base, config=(base_directory / "config.json").read_bytes())
            await stack.ensure("engine")
            yield rig
    finally:
        await rig.engine.stop()
        await rig.registry.stop()
        rig.storage.close()


@asynccontextmanager
async def meanwhile(*work: Coroutine[Any, Any, Value]) -> AsyncIterator[list[asyncio.Task[Value]]]:
    """Run these beside the block; what still runs when it ends is given up."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def rot(path: Path, damage: str) -> None:
    """Do to a file what disks do: ``truncated``, ``bit flip`` or ``gone``."""
    if damage == "gone":
        path.unlink()
    elif damage == "truncated":
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size - 4096)
    else:
        with path.open("r+b") as file:
            file.seek(path.stat().st_size // 2)
            (byte,) = file.read(1)
            file.seek(-1, 1)
            file.write(bytes([byte ^ 1]))


def streamed_text(lines: list[str]) -> str:
    """Return the text of a streamed completion."""
    pieces = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
    return "".join(piece["choices"][0]["text"] for piece in pieces if piece.get("choices"))
