"""One process that dies by its own SIGKILL at a named point: run by the tests as `driver.py ROLE POINT JSON`.

publisher: publishes a directory and dies after begin, after the upload or some of its parts, or before complete.
server: serves the registry and dies when complete reaches a step, or just after it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn

from kit.storage import ObjectStorage
from registry.app import create_app
from registry.client import RegistryClient, draft_from_directory
from registry.manifest import BaseIdentity, Owner
from registry.publishing.publisher import Publisher
from registry.publishing.schemas import Preference
from registry.settings import RegistrySettings


def die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def publish(point: str, given: dict[str, Any]) -> None:
    directory = Path(given["directory"])
    base = BaseIdentity.model_validate(given["base"])
    draft = draft_from_directory(directory, owner=Owner(tenant="default", user="ann"), base=base)
    async with RegistryClient(url=given["url"], token=given["token"]) as client:
        publication = await client.begin(draft, preference=Preference(given["preference"]))
        if point == "begin":
            die()
        if point == "some parts":
            await client.upload(publication, directory, on_progress=die)
        await client.upload(publication, directory)
        if point == "upload":
            die()
        if point == "during complete":
            asyncio.get_running_loop().call_later(float(given["delay_seconds"]), die)
        await client.complete(publication.version_id)
        if point == "complete":
            die()


def break_at(point: str) -> None:
    """Make one method, of the publisher or of the store, the last thing this process does."""
    when, name, number = point.split()
    owner: Any = Publisher if hasattr(Publisher, name) else ObjectStorage
    method: Callable[..., Any] = getattr(owner, name)
    calls = 0

    async def last(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == int(number) and when == "before":
            die()
        outcome = await method(*args, **kwargs)
        if calls == int(number) and when == "after":
            die()
        return outcome

    setattr(owner, name, last)


def serve(point: str, given: dict[str, Any]) -> None:
    break_at(point)
    settings = RegistrySettings.model_validate(given["settings"])
    uvicorn.run(create_app(settings), host="127.0.0.1", port=settings.registry_port, access_log=False)


if __name__ == "__main__":
    role, point_of_death, arguments = sys.argv[1:]
    if role == "publisher":
        asyncio.run(publish(point_of_death, json.loads(arguments)))
    else:
        serve(point_of_death, json.loads(arguments))
