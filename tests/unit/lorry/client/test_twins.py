"""The blocking client is made of the awaited one, so that they stay alike."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[4]


def test_the_blocking_client_is_what_is_made_of_the_awaited_one() -> None:
    made = subprocess.run([sys.executable, "scripts/blocking_client.py", "--check"], cwd=ROOT, check=False)
    assert made.returncode == 0, "run: python scripts/blocking_client.py"
