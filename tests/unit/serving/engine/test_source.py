"""From a version's name to opened files: one call, one download, and nothing that was not verified."""

from __future__ import annotations

import asyncio
import base64
import errno
import gc
import hashlib
import http.server
import json
import os
import shutil
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry

from kit.errors import LorryError
from kit.problems import problem
from kit.sealing import Fill, new_key, seal
from registry.client import RegistryClient
from registry.errors import BaseModelMismatch, NotServable, RegistryError, RegistryUnavailable, VersionNotFound
from registry.manifest import BaseIdentity
from serving.engine.installer import SEALED_FILE, Installer
from serving.engine.metrics import EngineMetrics, reason_of
from serving.engine.opened import OpenedAdapter
from serving.engine.source import AdapterSource, Fit
from serving.engine.urgency import Urgency
from serving.errors import (
    AdapterDamaged,
    AdapterUnfit,
    CacheFull,
    EngineOutOfTouch,
    MachineRefused,
    ObjectStoreUnavailable,
    RegistryRefusedEngine,
)

ID = "v" + "1" * 32
DIGEST = "0" * 64
BASE = {
    "id": "base",
    "config_sha256": DIGEST,
    "weights_sha256": DIGEST,
    "tokenizer_sha256": DIGEST,
    "chat_template_sha256": DIGEST,
}
FILES = {"adapter_config.json": b'{"r": 4}', "adapter_model.safetensors": os.urandom(700_000)}
KEY = new_key()
SEALED = seal(KEY, b"".join(FILES.values()), context=ID.encode())


class ObjectStore:
    """Answers every GET with the sealed object, or as it is told."""

    def __init__(self) -> None:
        self.calls = 0
        self.body, self.status = SEALED, 200
        self.cut_at: int | None = None
        self.objects: dict[str, bytes] = {}  # by path; every other path is `body`
        self.unavailable_times = 0
        self.pause_seconds, self.piece_bytes, self.sent_bytes = 0.0, 1, 0
        store = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                store.calls += 1
                store.unavailable_times -= 1
                self.send_response(503 if store.unavailable_times >= 0 else store.status)
                body = store.objects.get(self.path, store.body)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                if store.pause_seconds:
                    self._dribble()
                else:
                    self.wfile.write(body[: store.cut_at])
                self.close_connection = store.cut_at is not None

            def _dribble(self) -> None:
                try:
                    for begin in range(0, len(store.body), store.piece_bytes):
                        self.wfile.write(store.body[begin : begin + store.piece_bytes])
                        store.sent_bytes = begin + store.piece_bytes
                        time.sleep(store.pause_seconds)
                except OSError:
                    self.close_connection = True  # nobody listens any more

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/object"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Answers:
    """A registry that answers every call alike, and counts."""

    def __init__(self, url: str) -> None:
        self.calls, self.url = 0, url
        self.response: Callable[[], httpx.Response] = lambda: httpx.Response(200, json=self.grant())
        self.by_request: Callable[[httpx.Request], httpx.Response] | None = None

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.calls += 1
        assert request.headers["authorization"] == "Bearer registry-token"
        assert request.url.path.endswith("/grant")
        return self.by_request(request) if self.by_request is not None else self.response()

    def grant(self, **changes: Any) -> dict[str, Any]:
        manifest = {
            "owner": {"tenant": "acme", "user": "ada"},
            "version": 1,
            "base": BASE,
            "lora": {"rank": 16, "alpha": 32, "target_modules": ["q_proj"]},
            "files": [
                {"path": name, "size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
                for name, data in FILES.items()
            ],
            "version_id": ID,
            "created_at": "2026-01-01T00:00:00Z",
        }
        return {
            "manifest": manifest | changes,
            "url": self.url,
            "content_key": base64.b64encode(KEY).decode(),
            "sealed_bytes": len(SEALED),
            "expires_at": "2036-01-01T00:00:00Z",
        }

    def refuse(self, status: int, code: str) -> None:
        body = json.loads(bytes(problem(status, code=code, title="No.", detail="because").body))
        self.response = lambda: httpx.Response(status, json=body)


REFUSAL_TTL_SECONDS = 10.0


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let the source's clock be so many seconds ahead."""

    def later(seconds: float) -> None:
        monkeypatch.setattr("serving.engine.source.monotonic", lambda: time.monotonic() + seconds)

    return later


class Place:
    """One engine's source, its disk, and everything around it."""

    def __init__(
        self,
        directory: Path,
        registry: RegistryClient,
        answers: Answers,
        *,
        max_bytes: int,
        silence_seconds: float = 0.5,
    ) -> None:
        self.directory, self.answers = directory, answers
        self.measures = CollectorRegistry()
        metrics = EngineMetrics(self.measures)
        self.installer = Installer(directory, metrics=metrics, lock_seconds=1, max_bytes=max_bytes)
        self.installer.open()
        fit = Fit(
            base=BaseIdentity.model_validate(BASE),
            max_rank=16,
            target_modules=frozenset({"q_proj"}),
        )
        self.source = AdapterSource(
            registry,
            installer=self.installer,
            fit=fit,
            metrics=metrics,
            refusal_ttl_seconds=REFUSAL_TTL_SECONDS,
            silence_seconds=silence_seconds,
        )

    async def have(self) -> OpenedAdapter:
        return await self.source.open(await self.source.find(ID), urgent=Urgency(urgent=True))

    async def content(self) -> bytes:
        with await self.have() as opened:
            return Path(opened.files.path).read_bytes()[:-16]

    def failures(self) -> dict[str, float]:
        name = "lorry_adapter_load_failures_total"
        samples = (sample for metric in self.measures.collect() for sample in metric.samples if sample.name == name)
        return {sample.labels["reason"]: sample.value for sample in samples if sample.value}

    @property
    def on_disk(self) -> Path:
        return self.directory / ID / SEALED_FILE

    def count(self, stage: str) -> float | None:
        labels = {"stage": stage, "source": "registry"}
        return self.measures.get_sample_value("lorry_adapter_load_seconds_count", labels)


@pytest.fixture
def store() -> Iterator[ObjectStore]:
    store = ObjectStore()
    yield store
    store.close()


@pytest.fixture
def answers(store: ObjectStore) -> Answers:
    return Answers(store.url)


@pytest.fixture
async def registry(answers: Answers) -> AsyncIterator[RegistryClient]:
    transport = httpx.MockTransport(answers)
    async with RegistryClient(url="http://registry", token="registry-token", transport=transport) as registry:
        yield registry


@pytest.fixture
def place(tmp_path: Path, registry: RegistryClient, answers: Answers) -> Place:
    return Place(tmp_path, registry, answers, max_bytes=1 << 30)


async def test_one_call_and_one_download_open_a_version(place: Place, answers: Answers, store: ObjectStore) -> None:
    assert await place.content() == b"".join(FILES.values())
    assert (answers.calls, store.calls) == (1, 1)


async def test_the_disk_holds_the_registrys_sealed_object_and_nothing_else(place: Place) -> None:
    await place.content()
    assert place.on_disk.read_bytes() == SEALED
    assert [path for path in place.directory.rglob("*") if path.is_file()] == [place.on_disk]


async def test_a_store_that_sends_next_to_nothing_counts_as_one_that_hangs(
    place: Place, store: ObjectStore, monkeypatch: pytest.MonkeyPatch, later: Callable[[float], None]
) -> None:
    monkeypatch.setattr("serving.engine.source._SLOWEST_BYTES_PER_SECOND", 1 << 30)
    store.pause_seconds = 0.05  # the whole would take hours
    began = time.monotonic()
    with pytest.raises(ObjectStoreUnavailable):
        await place.content()
    assert (time.monotonic() - began < 300, store.calls) == (True, 4)
    assert [path for path in place.directory.rglob("*") if path.is_file()] == []
    store.pause_seconds = 0.0
    later(REFUSAL_TTL_SECONDS)
    assert await place.content() == b"".join(FILES.values())


def plain_memory() -> list[str]:
    """The memory in this process that holds plain bytes of adapters; what is ready for the next holds zeros."""
    found = []
    for path in Path("/proc/self/fd").iterdir():
        try:
            if "lorry-adapter" in os.readlink(path) and path.read_bytes().strip(b"\0"):
                found.append(path.name)
        except FileNotFoundError:  # it was of the listing itself
            continue
    return found


@pytest.mark.parametrize("while_", ["downloading", "opening"])
async def test_what_nobody_wants_any_more_stops_and_leaves_nothing_plain_once_it_has_ended(
    tmp_path: Path,
    registry: RegistryClient,
    answers: Answers,
    store: ObjectStore,
    monkeypatch: pytest.MonkeyPatch,
    while_: str,
) -> None:
    place = Place(tmp_path, registry, answers, max_bytes=1 << 30, silence_seconds=10)
    given_up = threading.Event()
    if while_ == "downloading":
        store.pause_seconds, store.piece_bytes = 3.0, 300_000  # 700,000 bytes are three pieces
    else:
        await place.content()

        def held(fill: Callable[[Any], int]) -> Fill:
            def fill_when_it_may(view: memoryview) -> int:
                if plain_memory():
                    given_up.wait(60)
                return fill(view)

            return fill_when_it_may

        monkeypatch.setattr("serving.engine.source.fill_from", held)
    opening = asyncio.create_task(place.have())
    while not (store.sent_bytes if while_ == "downloading" else plain_memory()):  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.01)
    opening.cancel()
    asyncio.get_running_loop().call_soon(given_up.set)
    await asyncio.wait([opening])

    assert (opening.cancelled(), plain_memory()) == (True, [])
    assert (store.sent_bytes < len(SEALED), place.failures()) == (True, {})
    assert place.on_disk.exists() == (while_ == "opening")
    assert [path for path in (place.directory / ".staging").rglob("*") if path.is_file()] == []
    store.pause_seconds = 0.0
    monkeypatch.undo()
    assert await place.content() == b"".join(FILES.values())


async def test_what_is_on_disk_costs_neither_call_nor_download(
    place: Place, answers: Answers, store: ObjectStore
) -> None:
    await place.content()
    answers.refuse(503, "database-unavailable")
    assert await place.content() == b"".join(FILES.values())
    assert (answers.calls, store.calls) == (1, 1)
    assert (place.count("download"), place.count("open"), place.count("resolve")) == (1, 1, 1)


async def test_after_a_restart_one_call_brings_the_key_and_nothing_is_downloaded(
    place: Place, registry: RegistryClient, answers: Answers, store: ObjectStore
) -> None:
    await place.content()
    again = Place(place.directory, registry, answers, max_bytes=1 << 30)
    assert await again.content() == b"".join(FILES.values())
    assert (answers.calls, store.calls) == (2, 1)


async def test_without_a_key_what_is_on_disk_stays_shut(
    place: Place, registry: RegistryClient, answers: Answers
) -> None:
    await place.content()
    again = Place(place.directory, registry, answers, max_bytes=1 << 30)
    answers.refuse(409, "not-servable")
    with pytest.raises(NotServable):
        await again.content()


async def test_who_removes_a_version_forgets_its_key(place: Place, answers: Answers) -> None:
    await place.content()
    await place.installer.remove(ID)
    answers.refuse(404, "version-not-found")
    with pytest.raises(VersionNotFound):
        await place.content()


@pytest.mark.parametrize("end", ["room", "damaged", "lost", "abandoned", "refused"])
async def test_a_key_is_known_only_while_the_file_is_on_the_disk(
    tmp_path: Path, registry: RegistryClient, answers: Answers, store: ObjectStore, end: str
) -> None:
    place = Place(tmp_path, registry, answers, max_bytes=len(SEALED))
    if end == "abandoned":
        await place.source.find(ID)
    elif end == "refused":
        store.status = 503
        with pytest.raises(LorryError):
            await place.content()
    else:
        await place.content()
        assert place.source.at_hand(ID)
        async with place.installer.shelf(ID) as shelf:
            if end == "damaged":
                await shelf.discard()
            elif end == "lost":
                place.on_disk.unlink()
                assert await shelf.find(len(SEALED)) is None
        if end == "room":
            async with place.installer.shelf("v" + "2" * 32) as shelf, shelf.arrival(1):
                pass
    assert (place.source._offers, place.on_disk.exists()) == ({}, False)


@pytest.mark.parametrize("end", ["descriptors", "memory"])
async def test_what_is_on_the_disk_stays_there_when_it_is_the_machine_that_refuses(
    place: Place,
    answers: Answers,
    store: ObjectStore,
    monkeypatch: pytest.MonkeyPatch,
    later: Callable[[float], None],
    end: str,
) -> None:
    await place.content()
    code = {"descriptors": errno.EMFILE, "memory": errno.ENOMEM}[end]

    def refuse(*_: Any) -> int:
        raise OSError(code, os.strerror(code))

    answers.refuse(503, "registry-unavailable")
    store.status = 503
    with monkeypatch.context() as patch:
        patch.setattr(os, "memfd_create", refuse)
        for _ in range(2):  # the second hears what the first heard
            with pytest.raises(MachineRefused, match=os.strerror(code)):
                await place.content()
    assert place.failures() == {"machine": 1}
    later(REFUSAL_TTL_SECONDS)
    assert await place.content() == b"".join(FILES.values()), "its key is known, too"


async def test_a_file_that_the_disk_cannot_read_any_more_is_downloaded_anew(
    place: Place, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await place.content()
    real = Path.open

    def rotten(path: Path, *args: Any, **more: Any) -> Any:
        if path == place.on_disk:
            raise OSError(errno.EIO, "Input/output error")
        return real(path, *args, **more)

    monkeypatch.setattr(Path, "open", rotten)
    assert await place.content() == b"".join(FILES.values())
    assert store.calls == 2


async def test_a_staging_area_that_somebody_removed_is_made_anew(place: Place, store: ObjectStore) -> None:
    await place.content()
    shutil.rmtree(place.directory / ".staging")
    assert await place.content() == b"".join(FILES.values())
    await place.installer.remove(ID)
    shutil.rmtree(place.directory)
    assert await place.content() == b"".join(FILES.values())
    assert store.calls == 2


@pytest.mark.parametrize(("code", "reason"), [(errno.ENOSPC, "disk_full"), (errno.EROFS, "machine")])
async def test_a_disk_that_takes_no_lock_refuses_with_the_reason_and_loses_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch, code: int, reason: str
) -> None:
    await place.content()
    real = os.open

    def refuse(path: Any, *args: Any, **more: Any) -> int:
        if str(path).endswith(".lock"):
            raise OSError(code, os.strerror(code))
        return real(path, *args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        with pytest.raises((CacheFull, MachineRefused)) as refused:
            await place.content()
    assert (refused.value.status_code, place.failures()) == (503, {reason: 1})
    assert place.on_disk.read_bytes() == SEALED


@pytest.mark.parametrize("damage", ["flip", "truncated", "another version"])
async def test_what_rotted_on_disk_is_deleted_and_downloaded_once(
    place: Place, store: ObjectStore, damage: str
) -> None:
    await place.content()
    middle = len(SEALED) // 2
    damaged = {
        "flip": SEALED[:middle] + bytes([SEALED[middle] ^ 1]) + SEALED[middle + 1 :],
        "truncated": SEALED[:-1],
        "another version": seal(KEY, b"".join(FILES.values()), context=b"v" + b"2" * 32),
    }[damage]
    place.on_disk.write_bytes(damaged)
    assert await place.content() == b"".join(FILES.values())
    assert store.calls == 2
    assert place.on_disk.read_bytes() == SEALED


@pytest.mark.parametrize("damage", ["flip", "truncated", "longer", "other content", "gone"])
async def test_what_is_downloaded_damaged_is_refused_and_leaves_nothing(
    place: Place, store: ObjectStore, later: Callable[[float], None], damage: str
) -> None:
    if damage == "gone":
        store.status = 404
    else:
        store.body = {
            "flip": SEALED[:-1] + bytes([SEALED[-1] ^ 1]),
            "truncated": SEALED[:-1],
            "longer": SEALED + b"x",
            "other content": seal(KEY, b"{}" * 350_000, context=ID.encode()),
        }[damage]
    with pytest.raises(AdapterDamaged, match="the object store"):
        await place.content()
    assert [path for path in place.directory.rglob("*") if path.is_file()] == []
    store.body, store.status = SEALED, 200
    later(REFUSAL_TTL_SECONDS)
    assert await place.content() == b"".join(FILES.values())


async def test_an_object_store_that_breaks_off_is_asked_again(place: Place, store: ObjectStore) -> None:
    store.unavailable_times = 1
    assert await place.content() == b"".join(FILES.values())
    store.cut_at = 1000
    await place.installer.remove(ID)
    with pytest.raises(ObjectStoreUnavailable) as caught:
        await place.content()
    assert reason_of(caught.value) == "store_unavailable"  # not the registry, which answered
    assert [path for path in place.directory.rglob("*") if path.is_file()] == []


async def test_a_version_that_left_the_disk_is_granted_anew_when_its_url_is_old(
    place: Place, answers: Answers, store: ObjectStore, later: Callable[[float], None]
) -> None:
    await place.content()
    later(60)
    place.on_disk.unlink()
    assert await place.content() == b"".join(FILES.values())
    assert (answers.calls, store.calls) == (2, 2)


async def test_a_cache_without_room_refuses_and_downloads_nothing(
    tmp_path: Path, registry: RegistryClient, answers: Answers, store: ObjectStore
) -> None:
    place = Place(tmp_path, registry, answers, max_bytes=1000)
    with pytest.raises(CacheFull):
        await place.content()
    assert store.calls == 0


@pytest.mark.parametrize(
    ("status", "code", "error", "reason"),
    [
        (404, "version-not-found", VersionNotFound, "unknown_version"),
        (409, "not-servable", NotServable, "not_servable"),
        (503, "database-unavailable", RegistryUnavailable, "registry_unavailable"),
        (401, "unauthorized", RegistryRefusedEngine, "registry_refused"),
        (403, "forbidden", RegistryRefusedEngine, "registry_refused"),
        (404, "engine-not-found", EngineOutOfTouch, "out_of_touch"),
    ],
)
async def test_the_registrys_refusals_keep_their_meaning(
    place: Place, answers: Answers, status: int, code: str, error: type[RegistryError], reason: str
) -> None:
    answers.refuse(status, code)
    with pytest.raises(error):
        await place.source.find(ID)

    assert place.measures.get_sample_value("lorry_adapter_load_failures_total", {"reason": reason}) == 1


async def test_a_registry_that_hangs_is_waited_for_once(place: Place, answers: Answers) -> None:
    def hang(request: httpx.Request) -> httpx.Response:
        time.sleep(0.5)  # as long as the engine lets it be silent
        raise httpx.ReadTimeout("nothing came")

    answers.by_request = hang
    with pytest.raises(RegistryUnavailable):
        await place.content()
    assert answers.calls == 1


async def test_a_registry_that_restarts_is_asked_again(
    tmp_path: Path, registry: RegistryClient, answers: Answers
) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        if answers.calls > 2:
            return httpx.Response(200, json=answers.grant())
        raise httpx.ConnectError("nobody listens yet")

    answers.by_request = refuse
    patient = Place(tmp_path, registry, answers, max_bytes=1 << 30, silence_seconds=10)
    assert (await patient.content(), answers.calls) == (b"".join(FILES.values()), 3)


def test_a_wrong_engine_token_is_not_the_callers_fault() -> None:
    assert RegistryRefusedEngine.status_code == 503


@pytest.mark.parametrize(
    ("changes", "error", "reason"),
    [
        ({"base": BASE | {"weights_sha256": "1" * 64}}, BaseModelMismatch, "weights_sha256 differ"),
        ({"lora": {"rank": 32, "alpha": 32, "target_modules": ["q_proj"]}}, AdapterUnfit, "rank is 32; .* up to 16"),
        ({"lora": {"rank": 8, "alpha": 32, "target_modules": ["lm_head"]}}, AdapterUnfit, "not served: lm_head"),
        ({"version_id": "v" + "2" * 32}, AdapterDamaged, "another version than the one asked for"),
    ],
)
async def test_what_this_engine_cannot_serve_is_refused_before_anything_is_downloaded(
    place: Place, answers: Answers, store: ObjectStore, changes: dict[str, Any], error: type[LorryError], reason: str
) -> None:
    answers.response = lambda: httpx.Response(200, json=answers.grant(**changes))
    with pytest.raises(error, match=reason):
        await place.source.find(ID)

    assert store.calls == 0
    assert [path.name for path in place.directory.iterdir()] == [".staging"]


async def test_a_crowd_that_asks_for_what_cannot_be_had_costs_one_call(place: Place, answers: Answers) -> None:
    answers.refuse(404, "version-not-found")
    for _ in range(50):
        with pytest.raises(VersionNotFound):
            await place.source.find(ID)

    assert answers.calls == 1


async def test_a_refusal_is_forgotten_and_does_not_touch_other_versions(
    place: Place, answers: Answers, later: Callable[[float], None]
) -> None:
    answers.refuse(404, "version-not-found")
    for version_id in (ID, "v" + "2" * 32, ID):
        with pytest.raises(VersionNotFound):
            await place.source.find(version_id)
    assert answers.calls == 2

    later(REFUSAL_TTL_SECONDS)
    with pytest.raises(VersionNotFound):
        await place.source.find(ID)
    assert answers.calls == 3


async def test_a_remembered_refusal_holds_on_to_nothing_of_those_who_heard_it(place: Place, answers: Answers) -> None:
    class Request:
        """What a person wrote."""

    async def ask() -> weakref.ref[Request]:
        request = Request()
        try:
            await place.source.find(ID)
        except VersionNotFound:
            return weakref.ref(request)
        raise AssertionError("it was not refused")

    answers.refuse(404, "version-not-found")
    heard = [await ask() for _ in range(2)]
    gc.collect()
    assert [request() for request in heard] == [None, None]
    assert answers.calls == 1


async def test_refusals_that_are_over_are_forgotten(
    place: Place, answers: Answers, later: Callable[[float], None]
) -> None:
    answers.refuse(404, "version-not-found")
    for number in range(9):
        with pytest.raises(VersionNotFound):
            await place.source.find(f"v{number:032}")
    later(REFUSAL_TTL_SECONDS)
    with pytest.raises(VersionNotFound):
        await place.source.find(ID)
    assert len(place.source._refusals) == 1


async def test_neither_key_nor_url_shows_in_what_might_be_logged(place: Place, answers: Answers) -> None:
    offer = await place.source.find(ID)
    assert answers.url not in repr(offer)
    assert repr(KEY) not in repr(offer)


async def test_downloads_that_wait_hold_no_room_on_the_disk(
    tmp_path: Path, registry: RegistryClient, answers: Answers, store: ObjectStore
) -> None:
    """More versions at once than there are threads, and a disk that holds just as many as there are threads."""
    place = Place(tmp_path, registry, answers, max_bytes=4 * len(SEALED) + 100)
    plain, names = b"".join(FILES.values()), [f"v{number:032x}" for number in range(12)]
    sealed = {name: seal(KEY, plain, context=name.encode()) for name in names}
    store.objects = {f"/{version_id}": body for version_id, body in sealed.items()}

    def granted(request: httpx.Request) -> httpx.Response:
        version_id = request.url.path.split("/")[-2]
        grant = answers.grant(version_id=version_id)
        return httpx.Response(200, json=grant | {"url": store.url.replace("/object", f"/{version_id}")})

    answers.by_request = granted

    async def have(version_id: str) -> None:
        (await place.source.open(await place.source.find(version_id), urgent=Urgency())).close()

    await asyncio.gather(*(have(version_id) for version_id in sealed))
    assert len(place.installer.installed()) == 4
