"""The rules of the house, checked on the source: who imports whom, where SQL lives, which errors exist, the map."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit.errors import LorryError

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("kit", "registry", "transcripts", "training", "serving", "lorry")
SHARED_REGISTRY = {"registry.client", "registry.errors", "registry.manifest"}
MAY_IMPORT: dict[str, set[str]] = {
    "kit": set(),
    "registry": {"kit"},
    "transcripts": {"kit"},
    "training": {"kit", "transcripts", *SHARED_REGISTRY},
    "serving": {"kit", *SHARED_REGISTRY},
    "serving/extraction": {"kit", "transcripts", *SHARED_REGISTRY},
    "serving/gateway": {"kit", "transcripts", *SHARED_REGISTRY},
    "serving/jobs": {"kit", "transcripts", *SHARED_REGISTRY},
    "lorry": {"kit", "registry", "transcripts", "training", "serving"},
}
HOMES = {
    "boto3": {"kit/aws.py"},
    "botocore": {"kit/aws.py"},
    "vllm": {"serving/engine/"},
    "trl": {"training/"},
    "peft": {"training/"},
    "bitsandbytes": {"training/"},
    "torch": {"training/", "serving/engine/"},
    "anthropic": {"training/"},
    "dbos": {"training/jobs/durable.py"},
    "croniter": {"training/jobs/staleness.py"},
    "detect_secrets": {"transcripts/redaction/plugins.py"},
    "phonenumbers": {"transcripts/redaction/"},
}
SQL_VERBS = {"select", "insert", "update", "delete", "text"}
SQL_HOMES = re.compile(r"(^|/)repository\.py$|^lorry/migrations/|^lorry/schema\.py$|^kit/database\.py$")


def sources() -> list[Path]:
    return sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(relative: str) -> str:
    nested = "/".join(relative.split("/")[:2])
    return nested if nested in MAY_IMPORT else relative.split("/")[0]


def allowed(module: str, permitted: set[str]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in permitted)


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_dependencies_point_one_way(path: Path) -> None:
    relative = str(path.relative_to(ROOT))
    permitted = MAY_IMPORT[room_of(relative)]
    own = relative.split("/")[0]
    for module in imports(path):
        if module.split(".")[0] in ROOMS and module.split(".")[0] != own:
            assert allowed(module, permitted) or any(p.startswith(f"{module}.") for p in permitted), (
                f"{relative} may not import {module}"
            )


@pytest.mark.parametrize("library", HOMES)
def test_each_foreign_library_has_one_home(library: str) -> None:
    for path in sources():
        relative = str(path.relative_to(ROOT))
        if any(relative == home or relative.startswith(home) for home in HOMES[library]):
            continue
        users = [module for module in imports(path) if module.split(".")[0] == library]
        assert not users, f"{relative} imports {library}; its home is {HOMES[library]}"


def test_sql_is_written_in_repositories_only() -> None:
    for path in sources():
        relative = str(path.relative_to(ROOT))
        if SQL_HOMES.search(relative):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sqlalchemy"):
                verbs = {alias.name for alias in node.names} & SQL_VERBS
                assert not verbs or relative.endswith("models.py"), f"{relative} writes SQL ({verbs})"


def test_the_environment_is_read_by_settings_only() -> None:
    exceptions = {
        "lorry/local/part.py",  # hands our environment on to the children it starts
        "serving/engine/launch.py",  # writes vLLM's environment
        "serving/engine/__main__.py",
    }
    for path in sources():
        relative = str(path.relative_to(ROOT))
        if relative not in exceptions:
            assert "os.environ" not in path.read_text(), f"{relative} reads the environment"


def error_modules() -> list[str]:
    return [".".join(p.relative_to(ROOT).with_suffix("").parts) for p in sources() if p.name == "errors.py"]


def own_errors(module_name: str) -> list[type[LorryError]]:
    module = importlib.import_module(module_name)
    found = [value for value in vars(module).values() if inspect.isclass(value) and issubclass(value, LorryError)]
    return [value for value in found if value.__module__ == module_name]


@pytest.mark.parametrize("module_name", error_modules())
def test_the_error_tree_is_drawn_as_it_is(module_name: str) -> None:
    drawing = importlib.import_module(module_name).__doc__ or ""
    drawn = dict(re.findall(r"^[│├└─ ]*([A-Z]\w+) +(\d{3})$", drawing, flags=re.MULTILINE))
    actual = {error.__name__: str(error.status_code) for error in own_errors(module_name)}
    assert drawn == actual, f"{module_name}: the drawing and the classes differ"


@pytest.mark.parametrize("module_name", error_modules())
def test_every_error_explains_itself(module_name: str) -> None:
    for error in own_errors(module_name):
        message = error().message
        assert message.endswith("."), f"{error.__name__}: the default message is not a sentence: {message!r}"


def test_the_map_in_the_readme_is_true() -> None:
    readme = (ROOT / "README.md").read_text()
    block = re.search(r"<!-- map -->\n```\n(.*?)```", readme, flags=re.DOTALL)
    assert block is not None, "README.md has no map"
    drawn: set[str] = set()
    folders: list[str] = []
    for line in block[1].splitlines():
        found = re.match(r"( *)(\S+)  +\S", line)
        if found is None:
            continue
        depth = len(found[1]) // 2
        folders = [*folders[:depth], found[2].rstrip("/")]
        drawn.add("/".join(folders))
    missing = {name for name in drawn if not (ROOT / name).exists()}
    assert not missing, f"the map names what is not there: {sorted(missing)}"
    files = {str(p.relative_to(ROOT)) for p in sources() if p.name != "__init__.py" and "migrations" not in p.parts}
    unnamed = files - drawn
    assert not unnamed, f"the map leaves out {sorted(unnamed)}"


def test_no_module_lacks_its_docstring() -> None:
    for path in sources():
        if path.name == "__main__.py" or path.read_text().strip():
            assert ast.get_docstring(ast.parse(path.read_text())), f"{path.relative_to(ROOT)} has no docstring"


def test_nothing_in_the_repository_names_a_machine() -> None:
    pattern = re.compile(r"(^|[^A-Za-z0-9_.])/(work|root|farm|home)/[A-Za-z0-9._-]+")
    for path in [*sources(), *(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "Makefile"]:
        found = pattern.search(path.read_text())
        assert found is None, f"{path.relative_to(ROOT)} names {found[0] if found else ''}"
