"""Rewrite the map in README.md from the modules' own docstrings: run it after adding or moving a file."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("kit", "registry", "transcripts", "training", "serving", "lorry")
OTHERS = {
    "tests/": "unit, contract, integration, e2e, faults, fleet, gpu",
    "bench/": "side-by-side measurements: ours and a peer's, in one run",
    "docs/": "API, adapter format, profile schema, settings, operations, decisions, glossary, benchmarks",
    "deploy/": "images, compose, Envoy, alert rules, dashboards as code and as Grafana's JSON",
    "helm/": "the chart",
    "scripts/": "how .venv is made, images and another vLLM are tried, and what is made: map, schema, blocking client",
    ".ci/": "what must pass",
}
_WIDTH = 150


def phrase(path: Path) -> str:
    """Return the first line of a module's docstring, as it reads in the middle of a line."""
    text = (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n")[0].rstrip(".")
    word = text.split(" ")[0]
    starts_sentence = word.isalpha() and word[1:].islower()
    names = {"PostgreSQL", "OpenAI", "Problem"}
    return text[:1].lower() + text[1:] if starts_sentence and word not in names else text


def walk(folder: Path, depth: int) -> Iterator[tuple[int, str, str]]:
    """Yield (depth, name, phrase) of everything below a folder: files first."""
    if folder.name == "migrations":
        return
    for file in sorted(folder.glob("*.py")):
        if file.name != "__init__.py":
            yield depth, file.name, phrase(file)
    for child in sorted(path for path in folder.iterdir() if (path / "__init__.py").is_file()):
        yield depth, f"{child.name}/", phrase(child / "__init__.py")
        yield from walk(child, depth + 1)


def draw() -> str:
    """Return the whole map."""
    lines: list[tuple[int, str, str]] = []
    for room in ROOMS:
        lines.append((0, f"{room}/", phrase(ROOT / room / "__init__.py")))
        lines.extend(walk(ROOT / room, 1))
    lines.extend((0, name, text) for name, text in OTHERS.items())
    width = max(2 * depth + len(name) for depth, name, _ in lines) + 2
    return "".join(f"{'  ' * depth + name:<{width}}{text}"[:_WIDTH].rstrip() + "\n" for depth, name, text in lines)


if __name__ == "__main__":
    readme = ROOT / "README.md"
    text = readme.read_text()
    readme.write_text(re.sub(r"(<!-- map -->\n```\n).*?(```)", lambda m: m[1] + draw() + m[2], text, flags=re.DOTALL))
