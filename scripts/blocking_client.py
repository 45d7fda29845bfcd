"""Make lorry/client/blocking of lorry/client/awaited, word by word: run it after changing the latter.

With `--check`, change nothing, and end with 1 when the two differ.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
AWAITED = ROOT / "lorry" / "client" / "awaited"
BLOCKING = AWAITED.with_name("blocking")
_HEAD = "# Made by scripts/blocking_client.py of lorry/client/awaited: change it there.\n"
_PACKAGE = '"""The public API, called and waited for; made of `awaited`."""\n'
_WORDS = (
    (r"use it as an async context manager\.", "use it as a context manager. It may be shared between threads."),
    (r"lorry\.client\.awaited", "lorry.client.blocking"),
    (r"\basync (def|with|for)\b", r"\1"),
    (r"\bawait ", ""),
    (r"\basynccontextmanager\b", "contextmanager"),
    (r"\basync_lines\b", "lines"),
    (r"\basyncio\b", "time"),
    (r"\b__a(enter|exit|iter)__\b", r"__\1__"),
    (r"\ba(close|read|iter_bytes)\(", r"\1("),
    (r"\bAsync([A-Z]\w*)", r"\1"),
)


def made(text: str) -> str:
    """Return a blocking module of an awaited one, not yet formatted."""
    for pattern, word in _WORDS:
        text = re.sub(pattern, word, text)
    return _HEAD + text


def make(folder: Path) -> dict[str, str]:
    """Return every blocking module by its name, formatted as the house does; `folder` is written into."""
    for path in AWAITED.glob("*.py"):
        text = _HEAD + _PACKAGE if path.name == "__init__.py" else made(path.read_text())
        (folder / path.name).write_text(text)
    ruff = [sys.executable, "-m", "ruff"]
    config = ["--quiet", "--no-cache", "--config", str(ROOT / "pyproject.toml")]
    subprocess.run(
        [*ruff, "check", *config, "--select", "I,UP028", "--fix", "--unsafe-fixes", str(folder)], check=True, cwd=ROOT
    )
    subprocess.run([*ruff, "format", *config, str(folder)], check=True, cwd=ROOT)
    return {path.name: path.read_text() for path in folder.glob("*.py")}


def main() -> int:
    """Write the modules, or compare them."""
    with tempfile.TemporaryDirectory() as folder:
        modules = make(Path(folder))
    there = {path.name: path.read_text() for path in BLOCKING.glob("*.py")} if BLOCKING.is_dir() else {}
    if "--check" in sys.argv[1:]:
        return int(there != modules)
    BLOCKING.mkdir(exist_ok=True)
    for name in there.keys() - modules.keys():
        (BLOCKING / name).unlink()
    for name, text in modules.items():
        (BLOCKING / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
