"""The real parts, started once for a run; each test gets its own database and key prefix."""

from __future__ import annotations

import gc
import json
import os
import signal
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from hypothesis import settings
from hypothesis.internal.conjecture import providers
from pydantic import SecretStr
from safetensors.numpy import save_file

from kit.database import Database
from kit.master_keys import KeyFile
from kit.settings import DatabaseSettings, MasterKeySettings, StorageSettings
from kit.storage import ObjectStorage
from lorry.context import quiet
from lorry.home import Home
from lorry.local.part import start_part
from lorry.local.plan import Plan
from lorry.local.postgres import create_database, database_url, drop_database, prepare_postgres_async
from lorry.local.seaweed import ACCESS_KEY_ID, SeaweedPorts, prepare_seaweed
from lorry.local.stack import Stack, open_stack
from lorry.schema import migrate
from lorry.settings import LorrySettings
from registry.artifact.peft_config import LINEAR_LAYERS
from registry.client import RegistryClient, draft_from_directory
from registry.manifest import CONFIG_FILE, WEIGHTS_FILE, BaseIdentity, Manifest, Owner
from tests.support.nursery import Nursery
from tests.support.ports import free_port_block
from tests.support.side_by_side import OneEngine
from training.base_models import DEFAULT_BASE, prepare_base

_TEMPLATE = "lorry_template"
_ENGINE_START_SECONDS = 700.0  # on a machine however slow; a test that waits for longer is ended
# A database is made and dropped for nearly every test, and both end in a checkpoint. What is not forced to the disk is
# lost when the machine loses its power, which no test does; a server that is killed loses nothing.
_UNSYNCED = ("-c", "fsync=off", "-c", "full_page_writes=off")

# An example that takes long says nothing on a shared machine: speed is for benchmarks.
# What a change is refused for must fail again when it is tried again, so the examples are always the same ones;
# `make fuzz` draws new ones.
settings.register_profile("lorry", deadline=None, derandomize=True)
settings.register_profile("fuzz", deadline=None, derandomize=False, print_blob=True)
settings.load_profile("lorry")
# They would be others in every process: it also draws what stands in those modules of ours that are loaded by then.
providers._get_local_constants = lambda: providers._local_constants


def pytest_xdist_setupnodes() -> None:
    """Tell no process that its terminal has 80 columns: pytest loads readline, and that tells the environment so."""
    for name in ("COLUMNS", "LINES"):
        os.unsetenv(name)


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> OneEngine:
    """Share the tests between processes our way."""
    return OneEngine(config, log)


def pytest_collection_finish() -> None:
    """Have the collector of garbage pass over what was imported, which stays: a look at all of it takes a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _no_settings_from_the_shell() -> None:
    """What a developer exported must not reach a test."""
    for name in [name for name in os.environ if name.startswith("LORRY_")]:
        del os.environ[name]


@pytest.fixture(scope="session", autouse=True)
def _interrupts_are_heard() -> None:
    """What a shell without job control starts in the background inherits an ignored SIGINT, and hands it on."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def lasting_directory() -> Iterator[Path]:
    """A directory of this run for PostgreSQL, outside pytest's own.

    Every pytest that starts makes the parent of its temporary directories private again, and a PostgreSQL of another
    run, which as root has an account of its own, could not reach its data any more.
    """
    with tempfile.TemporaryDirectory(prefix="lorry-tests-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
async def postgres_directory(lasting_directory: Path) -> AsyncIterator[Path]:
    """A running PostgreSQL whose template database holds the migrated schema."""
    directory = lasting_directory / "postgres"
    directory.mkdir()
    part = await prepare_postgres_async(directory, log_path=directory / "postgres.log")
    running = await start_part(replace(part, argv=(*part.argv, *_UNSYNCED)))
    await running.wait_until_healthy()
    await create_database(directory, name=_TEMPLATE)
    template = Database(DatabaseSettings(database_url=database_url(directory, name=_TEMPLATE)))
    await migrate(template)
    await template.close()
    yield directory
    await running.stop()


@pytest.fixture
async def database_settings(postgres_directory: Path) -> AsyncIterator[DatabaseSettings]:
    """An empty, migrated database of this test's own."""
    name = f"test_{uuid.uuid4().hex}"
    await create_database(postgres_directory, name=name, template=_TEMPLATE)
    yield DatabaseSettings(database_url=database_url(postgres_directory, name=name))
    await drop_database(postgres_directory, name=name)


@pytest.fixture
async def database(database_settings: DatabaseSettings) -> AsyncIterator[Database]:
    """A pool on this test's database."""
    database = Database(database_settings)
    yield database
    await database.close()


@pytest.fixture(scope="session")
async def seaweed_settings(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[StorageSettings]:
    """A running SeaweedFS with one bucket."""
    directory = tmp_path_factory.mktemp("seaweed")
    ports = SeaweedPorts.from_base(free_port_block(10))
    part = prepare_seaweed(
        directory, ports=ports, secret_key="test-secret", sse_key="test-sse", log_path=directory / "seaweed.log"
    )
    running = await start_part(part)
    await running.wait_until_healthy()
    settings = StorageSettings(
        s3_bucket="lorry-tests",
        s3_endpoint_url=part.address,
        s3_access_key_id=ACCESS_KEY_ID,
        s3_secret_access_key=SecretStr("test-secret"),
    )
    await ObjectStorage(settings).create_bucket()
    yield settings
    await running.stop()


@pytest.fixture
def storage_settings(seaweed_settings: StorageSettings) -> StorageSettings:
    """A key prefix of this test's own."""
    return seaweed_settings.model_copy(update={"s3_prefix": uuid.uuid4().hex})


@pytest.fixture
def storage(storage_settings: StorageSettings) -> ObjectStorage:
    """An object store on this test's prefix."""
    return ObjectStorage(storage_settings)


@pytest.fixture
def master_key_settings(tmp_path: Path) -> MasterKeySettings:
    """A key file of this test's own."""
    path = tmp_path / "master-keys.json"
    KeyFile.create(path)
    return MasterKeySettings(master_key_file=path)


@pytest.fixture(scope="session")
def random_adapter(base_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Write an adapter that was never trained, yet answers unlike the base and unlike any other seed's."""

    def write(seed: int, *, rank: int = 16) -> Path:
        directory = tmp_path_factory.mktemp(f"adapter-{seed}-")
        save_file(random_weights(base_directory, seed=seed, rank=rank), directory / WEIGHTS_FILE)
        config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": 2 * rank, "bias": "none"}
        (directory / CONFIG_FILE).write_text(json.dumps({**config, "target_modules": sorted(LINEAR_LAYERS)}))
        return directory

    return write


@pytest.fixture(scope="session")
def publish(registry_client: RegistryClient, base_directory: Path) -> Callable[..., Awaitable[Manifest]]:
    """Publish an adapter directory for a user of the run's registry."""

    async def publish(directory: Path, *, user: str, tenant: str = "default") -> Manifest:
        base = BaseIdentity.of_directory(base_directory, id=DEFAULT_BASE)
        draft = draft_from_directory(directory, owner=Owner(tenant=tenant, user=user), base=base)
        return await registry_client.publish(directory, draft=draft)

    return publish


def random_weights(base_directory: Path, *, seed: int, rank: int) -> dict[str, np.ndarray]:
    """Return float32 LoRA tensors of all seven linear layers, strong enough to change answers.

    Axes: A (rank, features in), B (features out, rank).
    """
    base = json.loads((base_directory / "config.json").read_text())
    hidden, middle = base["hidden_size"], base["intermediate_size"]
    queries, keys = (base[name] * base["head_dim"] for name in ("num_attention_heads", "num_key_value_heads"))
    shapes = {
        **{"self_attn.q_proj": (hidden, queries), "self_attn.o_proj": (queries, hidden)},
        **{"self_attn.k_proj": (hidden, keys), "self_attn.v_proj": (hidden, keys)},
        **{"mlp.gate_proj": (hidden, middle), "mlp.up_proj": (hidden, middle), "mlp.down_proj": (middle, hidden)},
    }
    random, weights = np.random.default_rng(seed), {}
    for layer in range(base["num_hidden_layers"]):
        for module, (features_in, features_out) in shapes.items():
            name = f"base_model.model.model.layers.{layer}.{module}"
            a, b = random.standard_normal((rank, features_in)), random.standard_normal((features_out, rank))
            weights[f"{name}.lora_A.weight"] = (a / features_in**0.5).astype(np.float32)
            weights[f"{name}.lora_B.weight"] = (b * 0.05).astype(np.float32)
    return weights


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """The process that workers and commands are forks of."""
    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.fixture(scope="session")
def base_directory() -> Path:
    """The base model, prepared once on this machine."""
    return prepare_base(DEFAULT_BASE, Path(tempfile.gettempdir()) / "lorry-base" / DEFAULT_BASE)


@pytest.fixture(scope="session")
async def stack(lasting_directory: Path, base_directory: Path) -> AsyncIterator[Stack]:
    """Every part of one machine, from a home of this run's own; a test starts what it needs with `ensure`."""
    home = Home.open(lasting_directory / "home")
    ports = free_port_block(22)
    settings = LorrySettings(
        home=home.path,
        port_base=ports,
        gateway_port=ports + 21,
        threads=1,
        base_model=str(base_directory),
        engine_start_seconds=_ENGINE_START_SECONDS,
    )
    plan = Plan(settings=settings, home=home)
    async with open_stack(plan, base_directory=lambda: base_directory, on_state=quiet, on_wait=print) as stack:
        yield stack


@pytest.fixture(scope="session")
async def registry_client(stack: Stack, base_directory: Path) -> AsyncIterator[RegistryClient]:
    """A client of the run's registry, which knows the base model."""
    await stack.ensure("registry")
    async with RegistryClient(url=stack.plan.registry_url, token=stack.plan.registry_token) as client:
        base = BaseIdentity.of_directory(base_directory, id=DEFAULT_BASE)
        await client.register_base(base, config=(base_directory / "config.json").read_bytes())
        yield client


@pytest.fixture(scope="session")
async def engine(stack: Stack, registry_client: RegistryClient) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the one real engine of this run, with its token."""
    await stack.ensure("engine")
    headers = {"authorization": f"Bearer {stack.plan.engine_token}"}
    async with httpx.AsyncClient(base_url=stack.plan.engine_url, headers=headers, timeout=300) as client:
        yield client
