"""kill -9 at every step of an alias move, an erasure, retention and reconcile; PostgreSQL restarted in mid-transaction.

Each operation is killed at its first step, at its second, and so on until it survives; after every death nothing may
be half-visible, and doing it again, or a reconcile pass, leaves what an undisturbed run leaves.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from kit.database import Database
from kit.errors import DatabaseUnavailable
from kit.settings import DatabaseSettings
from kit.storage import ObjectStorage
from lorry.local.part import RunningPart, start_part
from lorry.local.postgres import create_database, database_url, prepare_postgres_async
from lorry.schema import migrate
from registry.app import create_app
from registry.client import RegistryClient, draft_from_directory
from registry.errors import NotServable
from registry.lifecycle.policy import TenantPolicy
from registry.lifecycle.repository import LifecycleRepository
from registry.manifest import AdapterRef, Owner
from registry.settings import RegistrySettings
from tests.support.adapters import BASE, BASE_CONFIG, write_adapter
from tests.support.registry_server import TOKEN, serving
from tests.support.steering import ADAPTER, lease, let_urls_lapse, make_live, publish_many, reconcile, retain, rows

pytestmark = pytest.mark.faults
DRIVER = Path(__file__).with_name("steering_driver.py")
MOST_STEPS = 120


class Driver:
    """Runs operations that die; see steering_driver.py."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def survives(self, settings: RegistrySettings, operation: str, fatal: int, **given: Any) -> bool:
        """Run an operation that dies at step `fatal`; say whether it survived."""
        values = {
            name: value.get_secret_value()
            if isinstance(value, SecretStr)
            else str(value)
            if isinstance(value, Path)
            else value
            for name, value in settings.model_dump().items()
        }
        orders, answers = self._process.stdin, self._process.stdout
        assert orders is not None
        assert answers is not None
        orders.write(json.dumps([operation, fatal, {"settings": values, **given}]).encode() + b"\n")
        status, written = json.loads(await asyncio.wait_for(answers.readline(), 300))
        assert (status, written) in {(0, "survived"), (-signal.SIGKILL, "")}, written
        return bool(status == 0)


@pytest.fixture(scope="module")
async def driver() -> AsyncIterator[Driver]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(DRIVER)), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    yield Driver(process)
    await process.communicate(b"")  # without input, it would be left open
    assert process.returncode == 0


async def at_every_step(trial: Callable[[int], Awaitable[bool]]) -> int:
    """Run `trial(1)`, `trial(2)` … until the operation survives; return how many steps it has."""
    for fatal in range(1, MOST_STEPS):
        if await trial(fatal):
            return fatal - 1
    raise AssertionError(f"more than {MOST_STEPS} steps")


def user(number: int) -> Owner:
    return Owner(tenant="default", user=f"user-{number}")


async def aliases_of(client: RegistryClient, owner: Owner) -> dict[str, str]:
    (found,) = (await client.list_adapters(owner.tenant, user=owner.user)).adapters
    return {name: getattr(named, "version_id", named) for name, named in found.aliases.items()}


async def trail(database: Database, owner: Owner, name: str) -> tuple[int, int]:
    """Return how many moves of an alias history and audit trail hold."""
    ((moves, entries),) = await rows(
        database,
        """select (select count(*) from alias_move m where m.adapter_id = a.id and m.name = :name),
                  (select count(*) from audit u where u.adapter_id = a.id and u.action like '% ' || :name)
           from adapter a where user_id = :user""",
        user=owner.user,
        name=name,
    )
    return moves, entries


async def test_a_promotion_killed_anywhere_has_happened_wholly_or_not_at_all(
    driver: Driver, registry_settings: RegistrySettings, client: RegistryClient, database: Database, tmp_path: Path
) -> None:
    async def trial(fatal: int) -> bool:
        owner = user(fatal)
        a, b = await publish_many(client, tmp_path, 2, owner=owner)
        await make_live(client, a, owner=owner)
        await client.move_alias(owner, ADAPTER, "candidate", version_id=b, expected_version_id=None)
        survived = await driver.survives(registry_settings, "promote", fatal, user=owner.user)
        before, after = {"live": a, "candidate": b}, {"live": b, "candidate": b, "previous": a}
        found = await aliases_of(client, owner)
        assert found in (before, after)
        assert await trail(database, owner, "live") == ((1, 1) if found == before else (2, 2))
        await client.lifecycle.promote(owner, ADAPTER)
        assert await aliases_of(client, owner) == after
        assert await trail(database, owner, "live") == (2, 2)
        return survived

    assert await at_every_step(trial) >= 2


async def test_a_rollback_killed_anywhere_and_asked_for_again_goes_back_once(
    driver: Driver, registry_settings: RegistrySettings, client: RegistryClient, database: Database, tmp_path: Path
) -> None:
    async def trial(fatal: int) -> bool:
        owner = user(fatal)
        a, b, c = await publish_many(client, tmp_path, 3, owner=owner)
        await make_live(client, a, b, c, owner=owner)
        survived = await driver.survives(registry_settings, "rollback", fatal, user=owner.user, leave=c)
        assert await aliases_of(client, owner) in ({"live": c, "previous": b}, {"live": b, "previous": a})
        await client.lifecycle.rollback(owner, ADAPTER, expected_version_id=c)
        assert await aliases_of(client, owner) == {"live": b, "previous": a}
        assert await trail(database, owner, "live") == (4, 4)
        return survived

    assert await at_every_step(trial) >= 2


async def whole(client: RegistryClient, version_id: str, directory: Path) -> bool:
    """Say whether a version can be read, whole; what is not served must be refused."""
    try:
        grant = await client.grant(version_id)
    except NotServable:
        return False
    await client.download(grant, directory)
    return True


async def bytes_of(storage: ObjectStorage, version_ids: list[str]) -> list[str]:
    return [found.key for found in await storage.list("") if any(version_id in found.key for version_id in version_ids)]


@pytest.mark.parametrize("recovery", ["again", "reconcile"])
@pytest.mark.parametrize("operation", ["erase-version", "erase-owner"])
async def test_an_erasure_killed_anywhere_is_never_half_visible_and_is_finished_by_either_way(
    driver: Driver,
    registry_settings: RegistrySettings,
    client: RegistryClient,
    database: Database,
    storage: ObjectStorage,
    tmp_path: Path,
    operation: str,
    recovery: str,
) -> None:
    async def trial(fatal: int) -> bool:
        owner = user(fatal)
        versions = await publish_many(client, tmp_path, 2, owner=owner)
        await make_live(client, *versions, owner=owner)
        doomed = versions if operation == "erase-owner" else versions[1:]
        survived = await driver.survives(registry_settings, operation, fatal, user=owner.user, version_id=versions[1])
        gone = [not await whole(client, v, tmp_path / f"{operation}-{fatal}-{v}") for v in doomed]
        assert gone in ([True] * len(doomed), [False] * len(doomed))
        if gone[0]:
            assert (await aliases_of(client, owner)).get("live") is None
        else:
            assert await aliases_of(client, owner) == {"live": versions[1], "previous": versions[0]}
        if gone[0] and recovery == "reconcile":
            await reconcile(client)
        elif operation == "erase-owner":
            await client.lifecycle.erase_owner(owner, why="again")
        else:
            await client.lifecycle.erase_version(versions[1], why="again")
        assert await bytes_of(storage, doomed) == []
        await let_urls_lapse(database)
        await reconcile(client)
        assert await rows(
            database, "select count(*) from adapter_version where state = 'erased' and removed_at is null"
        ) == [(0,)]
        assert await rows(database, "select count(wrapped) from data_key where user_id = :user", user=owner.user) == [
            (0 if operation == "erase-owner" else 1,)
        ]
        if operation == "erase-version":
            assert await whole(client, versions[0], tmp_path / f"kept-{fatal}")
        return survived

    assert await at_every_step(trial) >= 6


async def test_retention_killed_anywhere_loses_nothing_that_is_kept_and_is_finished_by_the_next_pass(
    driver: Driver,
    registry_settings: RegistrySettings,
    client: RegistryClient,
    database: Database,
    storage: ObjectStorage,
    tmp_path: Path,
) -> None:
    await client.lifecycle.put_policy("default", TenantPolicy(keep_versions=1, remove_after_seconds=0))

    async def trial(fatal: int) -> bool:
        owner = user(fatal)
        live, old, leased, newest = await publish_many(client, tmp_path, 4, owner=owner)
        await make_live(client, live, owner=owner)
        await lease(database, leased)
        survived = await driver.survives(registry_settings, "retain", fatal)
        kept = (live, leased, newest)
        for version_id in kept:
            assert await whole(client, version_id, tmp_path / f"{fatal}-{version_id}")
        await retain(client)
        assert await retain(client) == []
        assert await bytes_of(storage, [old]) == []
        for version_id in kept:
            assert await whole(client, version_id, tmp_path / f"{fatal}-{version_id}-again")
        found = await rows(database, "select action from audit where version_id = :v and id > 0", v=old)
        assert [action for (action,) in found][-2:] == ["retired", "removed"]
        assert len(found) == len(set(found))
        return survived

    assert await at_every_step(trial) >= 8


async def test_reconcile_killed_anywhere_is_finished_by_the_next_pass(
    driver: Driver,
    registry_settings: RegistrySettings,
    client: RegistryClient,
    database: Database,
    storage: ObjectStorage,
    tmp_path: Path,
) -> None:
    hasty = registry_settings.model_copy(update={"registry_abandoned_seconds": 0})

    async def trial(fatal: int) -> bool:
        owner = user(fatal)
        ready, dead, broken = await publish_many(client, tmp_path, 3, owner=owner)
        begun = []
        for seed in (7, 8):
            folder = write_adapter(tmp_path / f"{fatal}-{seed}", seed=seed)
            publication = await client.begin(draft_from_directory(folder, owner=owner, base=BASE))
            begun.append(publication.version_id)
            if seed == 7:
                await client.upload(publication, folder)
        uploaded, abandoned = begun
        await rows(
            database, "update adapter_version set state = 'erased', manifest = null where version_id = :v", v=dead
        )
        await storage.erase(f"tenants/default/users/{owner.user}/versions/{broken}")
        await storage.put(f"incoming/{ready}/adapter_model.safetensors", b"left over")
        await storage.multipart.begin(f"incoming/{ready}/adapter_model.safetensors")
        survived = await driver.survives(hasty, "reconcile", fatal)
        async with serving(create_app(hasty)) as url, RegistryClient(url=url, token=TOKEN) as again:
            await reconcile(again, limit=50)
            left = await reconcile(again, limit=50)
        assert {finding.action for finding in left} == {"publish it again, or erase it"}
        expected = {ready: "ready", dead: "erased", broken: "suspended", uploaded: "ready", abandoned: "rejected"}
        found = dict(
            await rows(
                database,
                "select version_id, state from adapter_version join adapter a on a.id = adapter_id where user_id = :u",
                u=owner.user,
            )
        )
        assert found == expected
        assert await bytes_of(storage, [dead, broken, abandoned]) == []
        assert [key for key in await bytes_of(storage, [ready]) if key.startswith("incoming/")] == []
        assert await storage.multipart.list_unfinished() == []
        for version_id in (ready, uploaded):
            assert await whole(client, version_id, tmp_path / f"{fatal}-{version_id}")
        await client.lifecycle.erase_owner(owner, why="next trial")
        return survived

    assert await at_every_step(trial) >= 15


@pytest.fixture
async def own_postgres(lasting_directory: Path) -> AsyncIterator[tuple[Path, RunningPart, str]]:
    """A PostgreSQL of this test's own, which it may crash."""
    directory = lasting_directory / "crashing"
    directory.mkdir()
    running = await start_part(await prepare_postgres_async(directory, log_path=directory / "log"))
    await running.wait_until_healthy()
    await create_database(directory, name="lorry")
    url = database_url(directory, name="lorry")
    database = Database(DatabaseSettings(database_url=url))
    await migrate(database)
    await database.close()
    yield directory, running, url
    await running.stop()


async def crash_and_restart(directory: Path, running: RunningPart) -> RunningPart:
    """Stop PostgreSQL as a crash would, and start it again on the same data."""
    (pid,) = [int(path.read_text().split()[0]) for path in directory.rglob("postmaster.pid")]
    os.kill(pid, signal.SIGQUIT)
    await running.wait()
    again = await start_part(await prepare_postgres_async(directory, log_path=directory / "log"))
    await again.wait_until_healthy()
    return again


async def test_postgresql_restarted_in_mid_transaction_undoes_the_move_and_the_next_one_succeeds(
    registry_settings: RegistrySettings,
    own_postgres: tuple[Path, RunningPart, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    directory, running, url = own_postgres
    settings = registry_settings.model_copy(update={"database_url": url})
    async with serving(create_app(settings)) as registry, RegistryClient(url=registry, token=TOKEN) as client:
        await client.register_base(BASE, config=BASE_CONFIG)
        owner = user(1)
        a, b = await publish_many(client, tmp_path, 2, owner=owner)
        await make_live(client, a, owner=owner)
        original, crashes = LifecycleRepository.set_alias, 0

        async def set_alias(repository: LifecycleRepository, *args: Any) -> None:
            nonlocal running, crashes
            await original(repository, *args)
            if not crashes:
                crashes += 1
                running = await crash_and_restart(directory, running)

        monkeypatch.setattr(LifecycleRepository, "set_alias", set_alias)
        app_database = Database(DatabaseSettings(database_url=url))
        from registry.lifecycle.aliases import Aliases
        from registry.lifecycle.schemas import AliasMove

        move = AliasMove(version_id=b, expected_version_id=a)
        with pytest.raises(DatabaseUnavailable):
            await Aliases(app_database).move_alias(owner, ADAPTER, "live", move=move, actor="test")
        assert await aliases_of(client, owner) == {"live": a}
        assert await trail(app_database, owner, "live") == (1, 1)
        await client.move_alias(owner, ADAPTER, "live", version_id=b, expected_version_id=a)  # by the old connections
        assert await aliases_of(client, owner) == {"live": b, "previous": a}
        assert (await client.resolve(AdapterRef(owner=owner))).manifest.version_id == b
        await app_database.close()
    await running.stop()
