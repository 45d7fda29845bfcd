"""What a container of Lorry's images runs: LORRY_ROLE says which process; this starts it, asks it and drains it.

    python -m lorry.container                  # become the process of LORRY_ROLE
    python -m lorry.container probe            # exit code 0 when it is ready
    python -m lorry.container drain 120        # an engine takes no more requests; wait up to 120 s for those that run
    python -m lorry.container ask /lorry/ready # print what an engine answers to whoever has its token; --post: to POST

The process takes this one's place, so that it hears a container's signals itself.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import os
import sys
import time
from dataclasses import dataclass
from typing import Literal

import httpx
from pydantic import Field

from kit.database import Database
from kit.errors import LorryError
from kit.settings import Settings

Role = Literal["gateway", "registry", "engine", "extractor", "conductor", "trainer", "trainings", "migrate", "bucket"]
_PROBE_SECONDS = 5.0
_MOST_DRAIN_SECONDS = 600
_LEAST_DRAIN_SECONDS = 5.0  # until every load balancer has seen that the engine is not ready


@dataclass(frozen=True, kw_only=True)
class Program:
    """What a role runs: `module`, in an image that has `needs`."""

    module: str
    needs: str | None = None


PROGRAMS: dict[Role, Program] = {
    "gateway": Program(module="serving.gateway"),
    "registry": Program(module="registry"),
    "engine": Program(module="serving.engine", needs="vllm"),
    "extractor": Program(module="serving.jobs"),
    "conductor": Program(module="lorry.erasure", needs="dbos"),
    "trainer": Program(module="training.jobs", needs="torch"),
    "trainings": Program(module="training.service"),
    "migrate": Program(module="lorry.schema"),
    "bucket": Program(module="lorry.bucket"),
}


class ContainerSettings(Settings):
    """What a container is told beside the settings of its role."""

    role: Role = Field(description=f"what a container runs: {', '.join(PROGRAMS)}")


def main() -> None:
    """Do what the command line says; exit code 2 when that cannot be begun, 1 when a probe or a drain fails."""
    parser = argparse.ArgumentParser(prog="python -m lorry.container", description="Run, probe or drain LORRY_ROLE.")
    verbs = parser.add_subparsers(dest="verb")
    verbs.add_parser("probe", help="exit code 0 when the process is ready")
    verbs.add_parser("drain", help="let an engine finish").add_argument("seconds", type=_seconds)
    ask = verbs.add_parser("ask", help="print what an engine answers")
    ask.add_argument("path", type=_path)
    ask.add_argument("--post", action="store_true", help="POST without a body, rather than GET")
    arguments = parser.parse_args()
    role = ContainerSettings.read_or_exit("container").role
    match arguments.verb:
        case "probe":
            _end(asyncio.run(_is_ready(role)), f"{role} is not ready")
        case "drain" | "ask" if role != "engine":
            parser.error(f"only an engine is drained or asked; LORRY_ROLE is {role}")
        case "drain":
            _end(_drain(arguments.seconds), "the engine did not become empty")
        case "ask":
            _end(
                _ask(arguments.path, method="POST" if arguments.post else "GET"),
                "the engine did not answer, or said no",
            )
        case _:
            _become(role)


def _become(role: Role) -> None:
    program = PROGRAMS[role]
    if program.needs is not None and importlib.util.find_spec(program.needs) is None:
        sys.stderr.write(f"container: LORRY_ROLE: this image has no {program.needs}, which {role} needs\n")
        raise SystemExit(2)
    os.execv(sys.executable, [sys.executable, "-m", program.module])


async def _is_ready(role: Role) -> bool:
    match role:
        case "trainer":
            return await _worker_is_heard()
        case "conductor":
            return await _database_answers()
        case "migrate" | "bucket":
            return True  # they end by themselves, and their exit code says how
        case _:
            url, headers = _readiness(role)
            return _answers_ok(url, headers)


def _readiness(role: Role) -> tuple[str, dict[str, str]]:
    """Return where a service says that it is ready, and what asking takes."""
    match role:
        case "engine":
            return _engine("/lorry/ready")
        case "gateway":
            from serving.gateway.settings import GatewaySettings  # an image holds only what its own roles import

            return f"http://127.0.0.1:{GatewaySettings.read_or_exit(role).gateway_port}/readyz", {}
        case "registry":
            from registry.settings import RegistrySettings

            return f"http://127.0.0.1:{RegistrySettings.read_or_exit(role).registry_port}/readyz", {}
        case "extractor":
            from serving.jobs.settings import ExtractionWorkerSettings

            return f"http://127.0.0.1:{ExtractionWorkerSettings.read_or_exit(role).extraction_worker_port}/readyz", {}
        case _:
            from training.jobs.settings import TrainingServiceSettings

            return f"http://127.0.0.1:{TrainingServiceSettings.read_or_exit(role).training_port}/readyz", {}


def _engine(path: str) -> tuple[str, dict[str, str]]:
    from serving.engine.settings import EngineSettings

    settings = EngineSettings.read_or_exit("engine")
    token = settings.engine_token.get_secret_value()
    return f"http://127.0.0.1:{settings.engine_port}{path}", {"authorization": f"Bearer {token}"}


def _answers_ok(url: str, headers: dict[str, str]) -> bool:
    try:
        with httpx.Client(trust_env=False, timeout=_PROBE_SECONDS) as client:
            return client.get(url, headers=headers).status_code == 200
    except httpx.HTTPError:
        return False


async def _worker_is_heard() -> bool:
    """Say whether the database heard this worker within its lease; it has no port that could be asked."""
    from training.jobs.fleet.repository import WorkerRepository
    from training.jobs.settings import WorkerSettings

    settings = WorkerSettings.read_or_exit("trainer")
    database = Database(settings.model_copy(update={"database_timeout_seconds": _PROBE_SECONDS}))
    try:
        async with database.reading() as session:
            return await WorkerRepository(session).is_alive(settings.worker_id)
    except LorryError:
        return False
    finally:
        await database.close()


async def _database_answers() -> bool:
    """Say whether the conductor's database answers; the conductor has no port, and waits while it does not."""
    from lorry.erasure.settings import ErasureSettings

    settings = ErasureSettings.read_or_exit("conductor")
    database = Database(settings.model_copy(update={"database_timeout_seconds": _PROBE_SECONDS}))
    try:
        await database.check()
    except LorryError:
        return False
    finally:
        await database.close()
    return True


def _drain(seconds: int) -> bool:
    url, headers = _engine("/lorry/drain")
    began = time.monotonic()
    try:
        with httpx.Client(trust_env=False, timeout=seconds + _PROBE_SECONDS) as client:
            answer = client.post(url, headers=headers, json={"wait_seconds": seconds}).raise_for_status().json()
    except httpx.HTTPError:
        return False  # it stopped, or never ran: there is nothing left to wait for
    time.sleep(max(0.0, began + _LEAST_DRAIN_SECONDS - time.monotonic()))
    return bool(answer["drained"])


def _ask(path: str, *, method: str) -> bool:
    """Print an engine's answer, so that whoever is on call needs neither its token nor a way to its port."""
    url, headers = _engine(path)
    try:
        with httpx.Client(trust_env=False, timeout=_PROBE_SECONDS) as client:
            answer = client.request(method, url, headers=headers)
    except httpx.HTTPError:
        return False
    sys.stdout.write(f"{answer.text.rstrip()}\n")
    return answer.is_success


def _path(text: str) -> str:
    if not text.startswith("/lorry/"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a path below /lorry/")
    return text


def _seconds(text: str) -> int:
    value = int(text) if text.isdecimal() else -1
    if not 0 <= value <= _MOST_DRAIN_SECONDS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to {_MOST_DRAIN_SECONDS}")
    return value


def _end(is_well: bool, otherwise: str) -> None:
    if not is_well:
        sys.stderr.write(f"container: {otherwise}\n")
    raise SystemExit(0 if is_well else 1)


if __name__ == "__main__":
    main()
