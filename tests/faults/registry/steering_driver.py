"""Steering operations, each in a process of its own that dies by SIGKILL at the operation's n-th step.

Reads lines `[OPERATION, N, {"settings": …, …}]`, forks for each of them, and writes how that process ended as a line
`[EXIT STATUS, "what it wrote"]`: -9 when it died, 0 and "survived" when the operation has fewer steps. A step is the
moment before or after a commit, or before or after a call that changes the object store. The parent has imported
everything and runs no thread and no event loop, so that a trial costs what it does and not what Python costs.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from kit.database import Database
from kit.multipart import MultipartUploads
from kit.storage import ObjectStorage
from registry.app import create_app
from registry.lifecycle.aliases import Aliases
from registry.lifecycle.erasure import Eraser
from registry.lifecycle.schemas import Erasure, Promotion, Rollback
from registry.lifecycle.upkeep.reconcile import Reconciler
from registry.lifecycle.upkeep.retention import Retention
from registry.lifecycle.upkeep.schemas import Reconcile, Retain
from registry.manifest import Owner
from registry.services import kept
from registry.settings import RegistrySettings

ADAPTER = "profile"
WRITES = {
    ObjectStorage: ("put", "copy", "delete", "delete_many", "_delete_batch"),
    MultipartUploads: ("abort", "begin", "put_part", "complete"),
}


class Steps:
    """Counts, and dies at the one it was told."""

    def __init__(self, fatal: int) -> None:
        self._left = fatal

    def pass_one(self) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def count_everything(steps: Steps) -> None:
    """Make every commit and every change of the object store two steps."""
    begin = Database.transaction

    @asynccontextmanager
    async def transaction(database: Database) -> AsyncIterator[Any]:
        async with begin(database) as session:
            yield session
            await session.flush()
            steps.pass_one()
        steps.pass_one()

    Database.transaction = transaction  # type: ignore[method-assign]
    for owner, names in WRITES.items():
        for name in names:
            setattr(owner, name, counted(getattr(owner, name), steps))


def counted(method: Callable[..., Any], steps: Steps) -> Callable[..., Any]:
    async def call(*args: Any, **kwargs: Any) -> Any:
        steps.pass_one()
        outcome = await method(*args, **kwargs)
        steps.pass_one()
        return outcome

    return call


async def operate(app: FastAPI, operation: str, given: dict[str, Any]) -> None:
    actor = "driver"
    owner = Owner(tenant="default", user=given.get("user", "ann"))
    erasure = Erasure(why="asked for")
    if operation == "promote":
        await kept(app, Aliases).promote(owner, ADAPTER, Promotion(why="better"), actor=actor)
    elif operation == "rollback":
        await kept(app, Aliases).rollback(owner, ADAPTER, Rollback(expected_version_id=given["leave"]), actor=actor)
    elif operation == "erase-version":
        await kept(app, Eraser).erase_version(given["version_id"], erasure, actor=actor)
    elif operation == "erase-owner":
        await kept(app, Eraser).erase_owner(owner, erasure, actor=actor)
    elif operation == "retain":
        await whole_pass(kept(app, Retention).run, Retain(), actor=actor)
    elif operation == "reconcile":
        await whole_pass(kept(app, Reconciler).run, Reconcile(), actor=actor)


async def whole_pass(run: Callable[..., Any], request: Any, *, actor: str) -> None:
    while True:
        page = await run(request, actor=actor)
        if page.next_cursor is None:
            return
        request = request.model_copy(update={"cursor": page.next_cursor})


async def main(operation: str, fatal: int, given: dict[str, Any]) -> None:
    app = create_app(RegistrySettings.model_validate(given["settings"]))
    async with app.router.lifespan_context(app):
        count_everything(Steps(fatal))
        await operate(app, operation, given)


def in_a_process(operation: str, fatal: int, given: dict[str, Any]) -> tuple[int, str]:
    """Fork, run the operation there, and return the exit status and what was written."""
    with tempfile.TemporaryFile("w+") as written:
        pid = os.fork()
        if not pid:
            os.dup2(written.fileno(), 1)
            os.dup2(written.fileno(), 2)
            status = 1
            try:
                asyncio.run(main(operation, fatal, given))
                os.write(1, b"survived")
                status = 0
            except BaseException:
                os.write(2, traceback.format_exc().encode())
            finally:
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        written.seek(0)
        return status, written.read()


if __name__ == "__main__":
    for line in sys.stdin:
        sys.stdout.write(json.dumps(in_a_process(*json.loads(line))) + "\n")
        sys.stdout.flush()
