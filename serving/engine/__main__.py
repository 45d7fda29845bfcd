"""``python -m serving.engine``: check the settings, then become vLLM's server."""

from __future__ import annotations

import os
import sys

from serving.engine.launch import check_host, plan_launch
from serving.engine.settings import EngineSettings
from serving.errors import EngineError


def main() -> int:
    """Replace this process by vLLM; return 2 after naming what is wrong when it cannot be started."""
    settings = EngineSettings.read_or_exit("engine")
    try:
        launch = plan_launch(settings, inherited=os.environ)
        check_host(settings)
    except EngineError as exc:
        _complain(exc.field or "settings", exc.message)
        return 2
    os.execve(launch.arguments[0], launch.arguments, launch.environment)


def _complain(field: str, reason: str) -> None:
    sys.stderr.write(f"engine: {field}: {reason}\n")


if __name__ == "__main__":
    sys.exit(main())
