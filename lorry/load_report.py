"""What loading adapters cost, by stage: the engine's own histogram, read from its /metrics."""

from __future__ import annotations

import httpx
from prometheus_client.parser import text_string_to_metric_families

from kit.tls import authorities
from lorry.output import err, print_table
from serving.errors import EngineUnavailable

_METRIC = "lorry_adapter_load_seconds"
_STAGES = ("resolve", "download", "open", "engine_load", "queue", "read", "prepare")


async def read_load_report(engine_url: str) -> dict[str, dict[str, float]]:
    """Return for each stage how many loads there were and their mean in seconds; stages not seen are left out.

    Raises:
        EngineUnavailable: when the engine does not answer.
    """
    try:
        async with httpx.AsyncClient(timeout=30, verify=authorities(), trust_env=False) as client:
            text = (await client.get(f"{engine_url}/metrics")).raise_for_status().text
    except httpx.HTTPError as exc:
        raise EngineUnavailable(f"the engine's metrics could not be read: {type(exc).__name__}") from exc
    sums: dict[str, float] = {}
    counts: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        if family.name != _METRIC:
            continue
        for sample in family.samples:
            target = {f"{_METRIC}_sum": sums, f"{_METRIC}_count": counts}.get(sample.name)
            if target is not None:
                target[sample.labels["stage"]] = target.get(sample.labels["stage"], 0.0) + sample.value
    return {
        stage: {"loads": counts[stage], "mean_seconds": sums[stage] / counts[stage]}
        for stage in _STAGES
        if counts.get(stage)
    }


def show_load_report(report: dict[str, dict[str, float]]) -> None:
    """Print the table."""
    rows = [[stage, f"{row['loads']:.0f}", f"{row['mean_seconds'] * 1000:.1f}"] for stage, row in report.items()]
    columns = ["stage", "loads", "mean ms"]
    print_table("Adapter load latency", columns, rows, numeric=frozenset(columns[1:]), on=err)
