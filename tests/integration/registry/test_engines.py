"""The engine directory: who is there, who holds what, what each must not serve."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from kit.database import Database
from registry.app import create_app
from registry.client import RegistryClient
from registry.engines.directory import EngineDirectory
from registry.engines.schemas import MAX_WITHHELD, Farewell, Heartbeat, Holdings, Orders, Registration, Tier
from registry.errors import (
    EngineAlive,
    EngineNotFound,
    EngineSuperseded,
    Forbidden,
    InvalidReference,
    VersionNotFound,
)
from registry.services import kept
from registry.settings import RegistrySettings
from tests.support.adapters import BASE
from tests.support.registry_server import TOKEN, serving
from tests.support.versions import add_version, execute, resume, set_state, suspend

ENGINE_TOKEN = "a-token-for-engines-only"
UNKNOWN = "v" + "0" * 32


class TestEngine:
    """One engine as the registry sees it."""

    __test__ = False

    def __init__(self, client: RegistryClient, engine_id: str = "engine-1") -> None:
        self.id = engine_id
        self.incarnation = uuid.uuid4().hex
        self.proof: str | None = "5" * 64
        self.tiers: dict[str, Tier] = {}
        self.leases: dict[str, int] = {}
        self.client = client
        self._engines = client.engines

    async def register(self, **changes: Any) -> Orders:
        given = Registration(
            incarnation=self.incarnation,
            proof=self.proof,
            base=BASE,
            address="http://engine:8100",
            holdings=Holdings.of(self.tiers),
        )
        return await self._engines.register(self.id, given.model_copy(update=changes))

    async def beat(self, *, full: bool = True) -> Orders:
        holdings = Holdings.of(self.tiers)
        heartbeat = Heartbeat(
            incarnation=self.incarnation,
            holdings_digest=holdings.digest,
            holdings=holdings if full else None,
            leases=self.leases,
        )
        return await self._engines.heartbeat(self.id, heartbeat)

    async def leave(self) -> None:
        await self._engines.leave(self.id, Farewell(incarnation=self.incarnation))


@pytest.fixture
def engine(client: RegistryClient) -> TestEngine:
    return TestEngine(client)


def reasons(orders: Orders) -> dict[str, tuple[str, bool]]:
    return {each.version_id: (each.reason, each.delete) for each in orders.withheld}


async def silence(database: Database, engine_id: str, *, seconds: float) -> None:
    """Make the last sign of life older, by the database's clock."""
    statement = "update engine set last_seen_at = now() - make_interval(secs => :seconds) where id = :id"
    await execute(database, statement, seconds=seconds, id=engine_id)


async def test_an_engine_that_registers_is_listed_with_what_it_holds(
    client: RegistryClient, database: Database, engine: TestEngine
) -> None:
    on_disk, in_memory = await add_version(database), await add_version(database, user="bob")
    engine.tiers = {on_disk: Tier.DISK, in_memory: Tier.HOST}
    orders = await engine.register(facts={"device": "cpu", "slots": 4})
    (found,) = (await client.engines.list()).engines

    assert orders == Orders(lease_seconds=60)
    assert (found.id, found.state, found.base_id, found.address) == ("engine-1", "alive", BASE.id, "http://engine:8100")
    assert found.held == {Tier.DISK: 1, Tier.HOST: 1, Tier.DEVICE: 0}
    assert (found.facts["device"], found.facts["slots"]) == ("cpu", 4)
    assert found == (await client.engines.get("engine-1")).model_copy(update={"silent_seconds": found.silent_seconds})


async def test_an_engine_may_come_before_its_base_model_is_registered(registry_url: str, database: Database) -> None:
    async with RegistryClient(url=registry_url, token=TOKEN) as client:
        engine = TestEngine(client)
        await engine.register()
        assert (await client.engines.get(engine.id)).base_id is None
        engine.tiers = {await add_version(database): Tier.DISK}
        await engine.beat()
        assert (await client.engines.get(engine.id)).base_id == BASE.id


async def test_the_whole_list_is_asked_for_only_when_it_is_news(database: Database, engine: TestEngine) -> None:
    await engine.register()
    assert not (await engine.beat(full=False)).report
    engine.tiers = {await add_version(database): Tier.DISK}
    assert (await engine.beat(full=False)).report
    assert not (await engine.beat()).report
    assert not (await engine.beat(full=False)).report


async def test_holdings_are_replaced_and_their_order_does_not_matter(
    client: RegistryClient, database: Database, engine: TestEngine
) -> None:
    versions = [await add_version(database, user=f"u{index}") for index in range(4)]
    engine.tiers = dict.fromkeys(versions[:3], Tier.DISK)
    await engine.register()
    engine.tiers = {versions[3]: Tier.DISK, versions[1]: Tier.HOST}
    await engine.beat()

    assert (await client.engines.get(engine.id)).held == {Tier.DISK: 1, Tier.HOST: 1, Tier.DEVICE: 0}
    assert await client.engines.holders(versions[0]) == ()
    first, second = Holdings.of(engine.tiers), Holdings.of(dict(reversed(engine.tiers.items())))
    assert first.digest == second.digest


async def test_an_unknown_version_is_held_back_but_not_deleted(engine: TestEngine) -> None:
    engine.tiers = {UNKNOWN: Tier.HOST}
    assert reasons(await engine.register()) == {UNKNOWN: ("unknown", False)}


async def test_what_the_registry_never_knew_and_lies_on_a_disk_costs_no_answer(engine: TestEngine) -> None:
    engine.tiers = dict.fromkeys((f"v{number:032x}" for number in range(3)), Tier.DISK)
    assert await engine.register() == Orders(lease_seconds=60)
    assert await engine.beat(full=False) == Orders(lease_seconds=60)


async def test_an_answer_that_cannot_name_all_asks_again_until_it_can(
    database: Database, engine: TestEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registry.engines.repository.MAX_WITHHELD", 2)
    gone = [await add_version(database, user=f"u{number}") for number in range(3)]
    held = await add_version(database)
    for version_id in gone:
        await set_state(database, version_id, "erased")
    await suspend(database, user="ann")
    engine.tiers = dict.fromkeys(gone, Tier.DISK) | {held: Tier.HOST}
    orders = await engine.register()
    assert (orders.report, len(orders.withheld)) == (True, 2)
    assert orders.withheld[0].version_id == held  # what may be in memory first
    for told in orders.withheld:
        engine.tiers[told.version_id] = Tier.DISK  # out of memory
        if told.delete:
            del engine.tiers[told.version_id]
    orders = await engine.beat()
    assert (orders.report, [each.delete for each in orders.withheld]) == (False, [True, True])
    for told in orders.withheld:
        del engine.tiers[told.version_id]
    assert reasons(await engine.beat()) == {held: ("suspended", False)}


@pytest.mark.parametrize("adapter", ["", "profile"])
async def test_a_suspension_is_told_to_who_holds_it_until_it_is_resumed(
    database: Database, engine: TestEngine, adapter: str
) -> None:
    suspended, other = await add_version(database), await add_version(database, user="bob")
    engine.tiers = {suspended: Tier.HOST, other: Tier.HOST}
    assert reasons(await engine.register()) == {}
    await suspend(database, user="ann", adapter=adapter)

    for _ in range(2):  # level-triggered: a lost answer does no harm
        assert reasons(await engine.beat(full=False)) == {suspended: ("suspended", False)}
    await resume(database, user="ann", adapter=adapter)
    assert reasons(await engine.beat(full=False)) == {}


async def test_a_suspended_version_is_held_back(database: Database, engine: TestEngine) -> None:
    version_id = await add_version(database)
    engine.tiers = {version_id: Tier.HOST}
    await engine.register()
    await set_state(database, version_id, "suspended")
    assert reasons(await engine.beat()) == {version_id: ("suspended", False)}
    await set_state(database, version_id, "ready")
    assert reasons(await engine.beat()) == {}


async def test_what_a_newer_live_version_replaced_is_named_while_it_is_in_memory(
    database: Database, engine: TestEngine
) -> None:
    async def point(name: str, version_id: str) -> None:
        statement = (
            "insert into alias (adapter_id, name, version_id) select adapter_id, :name, version_id"
            " from adapter_version where version_id = :version"
            " on conflict (adapter_id, name) do update set version_id = excluded.version_id"
        )
        await execute(database, statement, name=name, version=version_id)

    old, new, other = [await add_version(database, user=user) for user in ("ann", "ann", "bob")]
    engine.tiers = dict.fromkeys((old, new, other), Tier.HOST)
    await engine.register()
    assert (await engine.beat()).superseded == ()  # nothing is live, so nothing was replaced
    await point("live", new)
    assert (await engine.beat()).superseded == (old,)
    await point("previous", old)
    assert (await engine.beat()).superseded == (old,)
    await point("candidate", old)
    assert (await engine.beat()).superseded == ()
    await point("candidate", new)
    engine.tiers[old] = Tier.DISK
    assert (await engine.beat()).superseded == ()


async def test_an_engine_that_was_away_hears_of_tombstones_when_it_registers(
    database: Database, engine: TestEngine
) -> None:
    erased, kept = await add_version(database), await add_version(database, user="bob")
    engine.tiers = dict.fromkeys((erased, kept), Tier.DISK)
    await engine.register()
    await silence(database, engine.id, seconds=10**7)
    await set_state(database, erased, "erased")
    returned = TestEngine(engine.client)
    returned.tiers = engine.tiers
    assert reasons(await returned.register()) == {erased: ("erased", True)}


async def test_a_retired_version_may_be_served_on_until_its_files_are_removed(
    database: Database, engine: TestEngine
) -> None:
    version_id = await add_version(database)
    engine.tiers = {version_id: Tier.HOST}
    await engine.register()
    await set_state(database, version_id, "retired")
    assert reasons(await engine.beat()) == {}
    await suspend(database, user="ann")
    assert reasons(await engine.beat()) == {version_id: ("suspended", False)}
    await execute(database, "update adapter_version set removed_at = now() where version_id = :id", id=version_id)
    assert reasons(await engine.beat()) == {version_id: ("removed", True)}


async def test_holders_and_leases_are_what_the_engines_last_said(
    client: RegistryClient, registry_settings: RegistrySettings, database: Database
) -> None:
    version_id = await add_version(database)
    engines = [TestEngine(client, f"engine-{number}") for number in range(3)]
    for engine, leases in zip(engines, (2, 0, 5), strict=True):
        engine.tiers = {version_id: Tier.HOST}
        await engine.register()
        engine.leases = {version_id: leases} if leases else {}
        await engine.beat(full=False)
    await silence(database, "engine-2", seconds=61)
    found = {each.engine_id: (each.state, each.tier, each.leases) for each in await client.engines.holders(version_id)}

    assert found == {
        "engine-0": ("alive", Tier.HOST, 2),
        "engine-1": ("alive", Tier.HOST, 0),
        "engine-2": ("lapsed", Tier.HOST, 5),
    }
    directory = create_app(registry_settings)
    async with directory.router.lifespan_context(directory):
        assert await kept(directory, EngineDirectory).leases(version_id) == 2  # a lapsed engine serves nothing
        assert await kept(directory, EngineDirectory).leases(UNKNOWN) == 0
        engines[0].leases = {}
        await engines[0].beat(full=False)
        assert await kept(directory, EngineDirectory).leases(version_id) == 0


async def test_leases_on_what_is_not_held_are_no_error(client: RegistryClient, engine: TestEngine) -> None:
    await engine.register()
    engine.leases = {UNKNOWN: 3}
    await engine.beat()
    assert (await client.engines.get(engine.id)).leases == 0


async def test_who_holds_an_unknown_version_is_not_found(client: RegistryClient) -> None:
    with pytest.raises(VersionNotFound):
        await client.engines.holders(UNKNOWN)


async def test_a_silent_engine_has_lapsed_and_lives_again_with_its_next_sign(
    client: RegistryClient, database: Database, engine: TestEngine
) -> None:
    await engine.register()
    await silence(database, engine.id, seconds=45)
    assert (await client.engines.get(engine.id)).state == "alive"
    await silence(database, engine.id, seconds=61)
    found = await client.engines.get(engine.id)
    assert (found.state, found.silent_seconds > 60) == ("lapsed", True)
    await engine.beat()
    assert (await client.engines.get(engine.id)).state == "alive"


async def test_a_restarted_engine_takes_its_place_and_the_old_one_is_told(
    client: RegistryClient, database: Database, engine: TestEngine
) -> None:
    await engine.register()
    newcomer = TestEngine(client)  # with the same disk, and so the same proof: nobody waits for a lease
    await newcomer.register()
    for _ in range(2):
        with pytest.raises(EngineSuperseded):
            await engine.beat()
    with pytest.raises(EngineSuperseded):
        await engine.leave()
    assert (await client.engines.get(engine.id)).state == "alive"

    await silence(database, engine.id, seconds=61)  # the newcomer has died: its place is free
    with pytest.raises(EngineNotFound):
        await engine.beat()
    await engine.register()
    with pytest.raises(EngineSuperseded):
        await newcomer.beat()


@pytest.mark.parametrize("proof", [None, "6" * 64])
async def test_a_living_engine_keeps_its_place_against_who_cannot_prove_to_be_it(
    client: RegistryClient, database: Database, engine: TestEngine, proof: str | None
) -> None:
    await engine.register()
    thief = TestEngine(client)
    thief.proof = proof
    with pytest.raises(EngineSuperseded, match="living engine"):
        await thief.register()
    await engine.beat()
    await engine.register()  # its own answer was lost: no proof is needed
    assert "proof" not in (await client.engines.get(engine.id)).model_dump_json()

    await silence(database, engine.id, seconds=61)
    await thief.register()
    with pytest.raises(EngineSuperseded):
        await engine.beat()


async def test_without_any_proof_a_living_engine_keeps_its_place(client: RegistryClient, engine: TestEngine) -> None:
    engine.proof = None
    await engine.register()
    thief = TestEngine(client)
    thief.proof = None
    with pytest.raises(EngineSuperseded):
        await thief.register()
    await engine.leave()
    await thief.register()


async def test_an_engine_that_is_not_registered_is_told_to_register(engine: TestEngine) -> None:
    with pytest.raises(EngineNotFound):
        await engine.beat()


async def test_an_engine_that_left_holds_nothing_and_does_not_alert(
    client: RegistryClient, database: Database, engine: TestEngine
) -> None:
    version_id = await add_version(database)
    engine.tiers = {version_id: Tier.HOST}
    await engine.register()
    await engine.leave()
    await engine.leave()

    assert (await client.engines.get(engine.id)).state == "left"
    assert await client.engines.holders(version_id) == ()
    with pytest.raises(EngineNotFound):
        await engine.beat()
    await engine.register()
    assert (await client.engines.get(engine.id)).state == "alive"


async def test_engines_that_left_long_ago_are_forgotten(client: RegistryClient, database: Database) -> None:
    old, new = TestEngine(client, "old"), TestEngine(client, "new")
    await old.register()
    await old.leave()
    await execute(database, "update engine set left_at = now() - interval '25 hours'")
    await new.register()
    assert [each.id for each in (await client.engines.list()).engines] == ["new"]


async def test_only_an_engine_that_stopped_can_be_forgotten(
    client: RegistryClient, database: Database, engine: TestEngine
) -> None:
    engine.tiers = {await add_version(database): Tier.DISK}
    await engine.register()
    with pytest.raises(EngineAlive):
        await client.engines.forget(engine.id)
    await silence(database, engine.id, seconds=61)
    await client.engines.forget(engine.id)
    assert (await client.engines.list()).engines == ()
    with pytest.raises(EngineNotFound):
        await client.engines.forget(engine.id)
    assert await execute(database, "select count(*) from engine_holding") == 0


async def test_engines_are_listed_page_by_page(client: RegistryClient) -> None:
    for number in range(5):
        await TestEngine(client, f"engine-{number}").register()
    seen, cursor = [], None
    while True:
        page = await client.engines.list(cursor=cursor, limit=2)
        seen += [each.id for each in page.engines]
        if (cursor := page.next_cursor) is None:
            break
    assert seen == [f"engine-{number}" for number in range(5)]


async def test_the_audit_trail_says_who_came_and_went(database: Database, engine: TestEngine) -> None:
    await engine.register()
    await engine.beat()
    await engine.leave()
    actions = await execute(
        database, "select string_agg(action, ', ' order by id) from audit where action like '%engine'"
    )
    assert actions == "register-engine, leave-engine"


async def test_ten_thousand_holdings_are_stored_and_judged_in_one_heartbeat(
    database: Database, engine: TestEngine
) -> None:
    real = await add_version(database)
    engine.tiers = {f"v{number:032x}": Tier.HOST for number in range(1, 10_001)} | {real: Tier.HOST}
    await engine.register()
    orders = await engine.beat(full=False)
    assert (len(orders.withheld), orders.report) == (MAX_WITHHELD, True)
    assert real not in reasons(orders)


async def test_heartbeats_of_many_engines_at_once_do_not_meet(client: RegistryClient, database: Database) -> None:
    version_id = await add_version(database)
    engines = [TestEngine(client, f"engine-{number}") for number in range(12)]
    for engine in engines:
        engine.tiers = {version_id: Tier.HOST}
        engine.leases = {version_id: 1}
    await asyncio.gather(*(engine.register() for engine in engines))
    await asyncio.gather(*(engine.beat() for engine in engines for _ in range(3)))
    assert sum(each.leases for each in await client.engines.holders(version_id)) == 12


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"incarnation": "short"}, "body.incarnation"),
        ({"address": "ftp://x"}, "body.address"),
        ({"address": "http://a/\u202e"}, "body.address"),
        ({"address": "http://a/\u009b31m"}, "body.address"),
        ({"facts": {"a\u0000b": 1}}, "body.facts"),
        ({"facts": {"a": "b\u0000"}}, "body.facts"),
        ({"facts": {str(n): n for n in range(33)}}, "body.facts"),
        ({"holdings": {"disk": ["v1"]}}, "body.holdings"),
        ({"holdings": {"moon": []}}, "body.holdings"),
    ],
)
async def test_a_bad_registration_is_refused_by_field(registry_url: str, change: dict[str, Any], field: str) -> None:
    body = {"incarnation": "0" * 32, "base": BASE.model_dump(mode="json")} | change
    headers = {"authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(timeout=60, base_url=registry_url, headers=headers) as http:
        answer = await http.put("/v1/engines/e", json=body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"].startswith(field)


async def test_an_engine_speaks_for_itself_only(registry_settings: RegistrySettings) -> None:
    settings = registry_settings.model_copy(update={"registry_engine_token": SecretStr(ENGINE_TOKEN)})
    async with serving(create_app(settings)) as url:
        async with RegistryClient(url=url, token=ENGINE_TOKEN, actor="engine-1") as client:
            await TestEngine(client, "engine-1").register()
            with pytest.raises(Forbidden):
                await TestEngine(client, "engine-2").register()
            for question in (client.engines.list(), client.engines.get("engine-1"), client.engines.forget("engine-1")):
                with pytest.raises(Forbidden):
                    await question
            with pytest.raises(Forbidden):
                await client.engines.holders(UNKNOWN)
        async with RegistryClient(url=url, token=ENGINE_TOKEN, actor="engine-1") as impostor:
            with pytest.raises(EngineSuperseded):  # knows the name, but not the secret of this start
                await TestEngine(impostor, "engine-1").beat()


async def test_a_name_that_is_no_name_is_refused(client: RegistryClient) -> None:
    with pytest.raises(InvalidReference):
        await client.engines.list(cursor="a b")


async def metrics_of(url: str) -> dict[str, float]:
    async with httpx.AsyncClient(timeout=60, base_url=url) as http:
        text = (await http.get("/metrics")).text
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in lines}


async def test_a_lapsed_engine_shows_on_metrics(registry_url: str, client: RegistryClient, database: Database) -> None:
    await TestEngine(client, "one").register()
    await TestEngine(client, "two").register()
    await silence(database, "two", seconds=61)
    await add_version(database)
    measures = await metrics_of(registry_url)

    assert measures['lorry_registry_engines{state="alive"}'] == 1
    assert measures['lorry_registry_engines{state="lapsed"}'] == 1
    assert measures['lorry_registry_engines{state="left"}'] == 0
    assert measures['lorry_registry_versions{state="ready"}'] == 1
    assert measures["lorry_registry_database_up"] == 1
    route = 'route="/v1/engines/{engine_id}"'
    assert measures[f'lorry_registry_requests_total{{method="PUT",{route},status="200"}}'] == 2
    assert not [name for name in measures if "engine-" in name or '"one"' in name]


async def test_metrics_answer_without_a_database(registry_settings: RegistrySettings) -> None:
    nowhere = "postgresql+asyncpg://nobody:x@127.0.0.1:1/none"
    settings = registry_settings.model_copy(update={"database_url": nowhere})
    async with serving(create_app(settings)) as url:
        measures = await metrics_of(url)
    assert measures["lorry_registry_database_up"] == 0
    assert measures['lorry_registry_engines{state="lapsed"}'] == 0
