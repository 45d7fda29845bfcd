"""What erasures and suspensions did on every engine: each engine's own receipts, read from it.

An engine keeps its last receipts in memory. One that has restarted has none; what it did then is in its log.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import httpx

from kit.tls import authorities
from registry.client.engines import EngineSummary

_TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class EngineReceipts:
    """What one engine answered: its receipts, the latest first, or why there are none to be had."""

    engine_id: str
    receipts: list[dict[str, Any]]
    failure: str | None = None


async def read_receipts(
    engines: list[EngineSummary], *, token: str, version_id: str | None = None
) -> list[EngineReceipts]:
    """Ask every engine of the directory that is alive for its receipts, of one version or of all."""
    async with httpx.AsyncClient(
        headers={"authorization": f"Bearer {token}"},
        timeout=_TIMEOUT_SECONDS,
        verify=authorities(),
        trust_env=False,
    ) as client:
        living = [engine for engine in engines if engine.state == "alive"]
        return list(await asyncio.gather(*(_read(client, engine, version_id) for engine in living)))


async def _read(client: httpx.AsyncClient, engine: EngineSummary, version_id: str | None) -> EngineReceipts:
    try:
        answer = (await client.get(f"{engine.address}/lorry/erasures")).raise_for_status()
        receipts = [each for each in answer.json()["erasures"] if version_id in {None, each["version_id"]}]
    except httpx.HTTPStatusError as exc:
        failure = f"it answered {exc.response.status_code}"
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        failure = f"it did not answer: {type(exc).__name__}"
    except (ValueError, KeyError, TypeError):
        failure = "its answer is none of an engine"
    else:
        return EngineReceipts(engine_id=engine.id, receipts=receipts)
    return EngineReceipts(engine_id=engine.id, receipts=[], failure=failure)
