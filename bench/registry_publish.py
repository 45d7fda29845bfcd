"""What it costs to publish small adapters, beside the S3 and the cryptography that no registry could do without.

Ours is a whole publish of an adapter directory: read, digest and check it, begin, seal, upload, and complete, which
reads the object back, opens it, compares every digest, looks at every value and makes the version ready. The client is
this process, the registry, PostgreSQL and SeaweedFS are their own.

The peer does only what has to be done with the same bytes, at the same concurrency: SHA-256, AES-256-GCM, a PUT and a
GET, in threads with boto3. The adapter is the smallest that Lorry trains for its default base: rank 4, float32.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from safetensors.numpy import save_file

from bench.report import compare, report
from kit import aws
from kit.canonical import sha256_bytes
from kit.settings import StorageSettings
from lorry.context import Context, open_context
from registry.app import create_app
from registry.client import RegistryClient, draft_from_directory
from registry.manifest import CONFIG_FILE, WEIGHTS_FILE, BaseIdentity, BaseShape, Owner
from registry.publishing.schemas import Preference
from registry.settings import RegistrySettings
from tests.support.faulty_s3 import faulty_s3
from tests.support.registry_server import serving

_RANK = 4
_CONCURRENCY = 8
_ROUNDS = 10
_TARGET = 0.7
# What the sizes of SmolLM2-135M's layers follow from.
_SMOLLM2 = {
    "num_hidden_layers": 30,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
}
_CONFIG = json.dumps(_SMOLLM2).encode()
_BASE = BaseIdentity(
    id="bench/smollm2-135m",
    config_sha256=sha256_bytes(_CONFIG),
    weights_sha256="2" * 64,
    tokenizer_sha256="3" * 64,
    chat_template_sha256="4" * 64,
)
_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


async def run(*, quick: bool) -> Path:
    """Publish 1,000 adapters (quick: 80) in rounds, the peer's in turn; LORRY_BENCH_ADAPTERS sets another number."""
    adapters = int(os.environ.get("LORRY_BENCH_ADAPTERS", 80 if quick else 1000))
    a_round = adapters // _ROUNDS
    with tempfile.TemporaryDirectory(prefix="lorry-bench-", ignore_cleanup_errors=True) as folder:
        os.environ |= {"LORRY_HOME": folder, "LORRY_PORT_BASE": "25600", "LORRY_GATEWAY_PORT": "25680"}
        directory = _write_adapter(Path(folder) / "adapter")
        async with open_context() as context:
            await context.registry.register_base(_BASE, config=_CONFIG)
            trips = await _round_trips(context, directory)
            bare = _Bare(context.plan.storage, directory)
            ours: list[float] = []
            theirs: list[float] = []
            await _together(a_round, lambda number: _publish(context.registry, directory, f"warm-{number}"))
            await _together(a_round, lambda number: bare.once(f"warm-{number}"))
            for round_number in range(_ROUNDS):
                turn: list[tuple[list[float], Callable[[str], Awaitable[object]]]] = [
                    (ours, lambda name: _publish(context.registry, directory, name)),
                    (theirs, bare.once),
                ]
                for rates, once in turn if round_number % 2 else reversed(turn):
                    name = f"round-{round_number}"
                    seconds = await _together(a_round, lambda number: once(f"{name}-{number}"))  # noqa: B023
                    rates.append(a_round / seconds)
    size = bare.size_bytes / 1e6
    measures = [
        compare(
            f"publishes of {size:.1f} MB a second, {_CONCURRENCY} at once",
            unit="1/s",
            ours=ours,
            peer=theirs,
            target=_TARGET,
            better="higher",
        ),
        *(compare(f"S3 requests a publish, {how}", unit="requests", ours=[count]) for how, count in trips.items()),
    ]
    return report("registry_publish", measures, peer="bare PUT + GET + SHA-256 + AES-256-GCM (boto3)", quick=quick)


async def _publish(registry: RegistryClient, directory: Path, user: str) -> None:
    owner = Owner(tenant="bench", user=user)
    draft = await asyncio.to_thread(draft_from_directory, directory, owner=owner, base=_BASE)
    await registry.publish(directory, draft=draft)


class _Bare:
    """The peer: the same bytes, digested, encrypted, written and read back, and nothing else."""

    def __init__(self, settings: StorageSettings, directory: Path) -> None:
        self._data = b"".join((directory / name).read_bytes() for name in (CONFIG_FILE, WEIGHTS_FILE))
        self._bucket = settings.s3_bucket
        session = aws.session(
            access_key_id=settings.s3_access_key_id,
            secret_access_key=settings.s3_secret_access_key,
            region=settings.s3_region,
        )
        config = aws.client_config(timeout_seconds=60, attempts=3, connections=_CONCURRENCY)
        self._client: Any = session.client("s3", endpoint_url=settings.s3_endpoint_url, config=config)
        self._threads = ThreadPoolExecutor(_CONCURRENCY)

    @property
    def size_bytes(self) -> int:
        """What one adapter has."""
        return len(self._data)

    async def once(self, name: str) -> None:
        """Do it for one adapter."""
        await asyncio.get_running_loop().run_in_executor(self._threads, self._once, f"bare/{name}")

    def _once(self, key: str) -> None:
        hashlib.sha256(self._data).digest()
        sealed = AESGCM(os.urandom(32)).encrypt(os.urandom(12), self._data, None)
        self._client.put_object(Bucket=self._bucket, Key=key, Body=sealed)
        if len(self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read()) != len(sealed):
            raise AssertionError("the store lost bytes")


async def _together(count: int, once: Callable[[int], Awaitable[object]]) -> float:
    """Do it so many times, `_CONCURRENCY` at once; return the seconds that all of them took."""
    slots = asyncio.Semaphore(_CONCURRENCY)

    async def one(number: int) -> None:
        async with slots:
            await once(number)

    started = time.perf_counter()
    await asyncio.gather(*[one(number) for number in range(count)])
    return time.perf_counter() - started


async def _round_trips(context: Context, directory: Path) -> dict[str, float]:
    """Count the requests of real publishes at a proxy before the store, through a registry in this process."""
    publishes = 20
    async with faulty_s3(context.plan.storage) as counted:
        settings = RegistrySettings(
            **context.plan.database.model_dump(),
            **counted.settings.model_dump(exclude={"log_level"}),
            **context.plan.master_keys.model_dump(exclude={"log_level"}),
            registry_token=context.plan.registry_token,  # pydantic wraps it
        )
        async with (
            serving(create_app(settings)) as url,
            RegistryClient(url=url, token=context.plan.registry_token) as registry,
        ):
            for number in range(publishes):
                await _publish(registry, directory, f"counted-{number}")
            sealed = len(counted.requests)
            for number in range(publishes):
                draft = draft_from_directory(directory, owner=Owner(tenant="bench", user=f"open-{number}"), base=_BASE)
                publication = await registry.begin(draft, preference=Preference.OPEN)
                await registry.upload(publication, directory)
                await registry.complete(publication.version_id)
        in_the_open = len(counted.requests) - sealed  # the server has stopped, and removed what it was to remove
    return {"sealed by the publisher": sealed / publishes, "sealed by the registry": in_the_open / publishes}


def _write_adapter(directory: Path) -> Path:
    """Write an adapter of all seven linear layers of all layers, as PEFT would."""
    shape, random, weights = BaseShape.parse(_CONFIG), np.random.default_rng(0), {}
    for layer in range(shape.num_hidden_layers):
        for module in _MODULES:
            block = "self_attn" if module in _MODULES[:4] else "mlp"
            inputs, outputs = shape.features(module)
            name = f"base_model.model.model.layers.{layer}.{block}.{module}"
            weights[f"{name}.lora_A.weight"] = random.standard_normal((_RANK, inputs), dtype=np.float32)
            weights[f"{name}.lora_B.weight"] = random.standard_normal((outputs, _RANK), dtype=np.float32)
    directory.mkdir()
    save_file(weights, directory / WEIGHTS_FILE)
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": _RANK, "lora_alpha": 2 * _RANK, "bias": "none"}
    (directory / CONFIG_FILE).write_text(json.dumps({**config, "target_modules": list(_MODULES)}))
    return directory
