"""`python -m bench [NAME …] [--quick] [--minutes N]`: run benchmarks; all of them without a name."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import os
import sys
from pathlib import Path

_PLUMBING = {
    "__init__",
    "__main__",
    "adapters",
    "common_start",
    "engines",
    "exposition",
    "fixed_upstream",
    "load",
    "registry_fill",
    "report",
    "stock",
}


def names() -> list[str]:
    """Return every benchmark's name: the modules of this folder that are no plumbing."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in _PLUMBING)


def main() -> None:
    """Run what was asked for, one after the other."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(names())}; all when omitted")
    parser.add_argument("--quick", action="store_true", help="a smoke run: few rounds, figures mean little")
    parser.add_argument("--minutes", type=float, help="how long those take whose length can be chosen: ops_soak")
    arguments = parser.parse_args()
    if arguments.minutes is not None:
        os.environ["LORRY_BENCH_MINUTES"] = str(arguments.minutes)
    unknown = sorted(set(arguments.names) - set(names()))
    if unknown:
        sys.exit(f"bench: there is no {', '.join(unknown)}; known are {', '.join(names())}")
    for name in arguments.names or names():
        measured = importlib.import_module(f"bench.{name}").run(quick=arguments.quick)
        # An event loop hears Ctrl-C between two awaits: what computes in this thread runs without one.
        path = asyncio.run(measured) if asyncio.iscoroutine(measured) else measured
        print(f"written to {path}")


if __name__ == "__main__":
    main()
