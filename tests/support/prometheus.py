"""Prometheus itself, from Debian's package, looking at parts of this machine."""

from __future__ import annotations

import shutil
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from lorry.local.part import Part, start_part


def debians(name: str) -> str:
    """Return where one of the package's programs is, beside Python or on the path; skip the test where it is not."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (Debian: apt install prometheus)")
    return found


class Prometheus:
    """Answers PromQL."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def ask(self, expr: str) -> list[dict[str, Any]]:
        """Return the series that an expression gives now; a syntax error is a failure."""
        answer = (await self._http.get("/api/v1/query", params={"query": expr})).json()
        assert answer["status"] == "success", (expr, answer)
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    async def targets(self) -> dict[str, str]:
        """Return job/instance → health."""
        answer = (await self._http.get("/api/v1/targets")).json()
        return {
            f"{each['labels']['job']}/{each['labels']['instance']}": each["health"]
            for each in answer["data"]["activeTargets"]
        }


@asynccontextmanager
async def running_prometheus(
    folder: Path, *, port: int, rules: Sequence[Path], targets: Mapping[str, tuple[list[str], str]]
) -> AsyncIterator[Prometheus]:
    """Run Prometheus on these rules and targets (job → addresses and path), looking each second.

    Skips the test, with the reason, where it is not installed.
    """
    binary = debians("prometheus")
    config = folder / "prometheus.yml"
    jobs = [
        {"job_name": job, "metrics_path": path, "static_configs": [{"targets": addresses}]}
        for job, (addresses, path) in targets.items()
    ]
    document = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(path) for path in rules],
        "scrape_configs": jobs,
    }
    config.write_text(yaml.safe_dump(document))
    address = f"http://127.0.0.1:{port}"
    part = Part(
        name="prometheus",
        argv=(
            binary,
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'prometheus'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ),
        log_path=folder / "prometheus.log",
        address=address,
        ports=(port,),
        is_healthy=lambda: _is_ready(address),
    )
    running = await start_part(part)
    try:
        await running.wait_until_healthy()
        async with httpx.AsyncClient(base_url=address, trust_env=False, timeout=30) as http:
            yield Prometheus(http)
    finally:
        await running.stop()


async def _is_ready(address: str) -> bool:
    async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
        try:
            return (await client.get(f"{address}/-/ready")).status_code == 200
        except httpx.HTTPError:
            return False
