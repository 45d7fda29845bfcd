"""An optional second opinion on weights: a static scanner whose outcome is recorded beside the validation.

The only one so far is `adaptersentry`, which compares the spectra of an adapter's layers with each other. It reads a
file, so while it is switched on the weights lie in a private temporary folder until it has finished.
"""

from __future__ import annotations

import json
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from kit.staging import staging
from registry.artifact.findings import Finding
from registry.manifest import CONFIG_FILE, WEIGHTS_FILE

ADAPTERSENTRY = "adaptersentry"


class Scan:
    """One scan: give it the weights as they stream by, then `finish`; `close` at the end whatever happens."""

    def __init__(self) -> None:
        self._end = ExitStack()
        self._folder = self._end.enter_context(staging(Path(tempfile.gettempdir()), prefix="lorry-scan-"))
        self._file = (self._folder / WEIGHTS_FILE).open("wb")

    def update(self, data: bytes | memoryview) -> None:
        """Keep the next bytes of the weights."""
        self._file.write(data)

    def finish(self, config: bytes) -> tuple[dict[str, Any], list[Finding]]:
        """Scan; return the outcome as the scanner wrote it, without file names, and warnings for people."""
        from adaptersentry import scan  # numpy, scipy and scikit-learn are loaded only where it is switched on

        self._file.close()
        (self._folder / CONFIG_FILE).write_bytes(config)
        result = scan(self._folder / WEIGHTS_FILE)
        outcome: dict[str, Any] = json.loads(result.model_dump_json(exclude={"modules"}, exclude_none=True))
        action = str(result.verdict.action)
        found = []
        if action != "allow":
            message = f"{ADAPTERSENTRY} says: {action}; see the scan's own findings"
            found.append(Finding(code="scan", field=WEIGHTS_FILE, message=message, severity="warning"))
        return {"scanner": ADAPTERSENTRY, "action": action, "result": outcome}, found

    def close(self) -> None:
        """Remove the copy."""
        self._file.close()
        self._end.close()
