"""Which process runs which tests when two share a run.

pytest-xdist's own way to name groups changes test ids, which pytest 9.2 does not let it (xdist 3.8, ``loadgroup``).
"""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling


class OneEngine(LoadScopeScheduling):  # type: ignore[misc]  # pytest-xdist leaves it untyped
    """Keeps a file's tests together, and all that use the run's engine: there is one."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        if file.startswith("tests/e2e/") or (file.startswith("tests/faults/serving/") and "/pool/" not in file):
            return "the run's engine"
        return file
