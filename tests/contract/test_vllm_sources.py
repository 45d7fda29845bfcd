"""What of vLLM we replace or lean on is what we read: of every version that Lorry works with, and of no other.

A failure here means that another vLLM is installed than those that `serving.engine` was written for. Read what changed
(``python -m tests.support.vllm_read``, or ``scripts/vllm_contract.sh`` for a vLLM that is not installed), adapt the
named file of ours so that every version in `SUPPORTED` works, and only then write the new digests down.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.engine.vllm_version import SUPPORTED
from tests.support.vllm_read import NAMES, READ, differences, digest, installed_tree, known, minor_version, source

ENGINE = Path(__file__).parents[2] / "serving" / "engine"


@pytest.mark.parametrize("name", NAMES)
def test_what_we_lean_on_is_what_we_read(name: str) -> None:
    tree = installed_tree()
    expected = known(name, minor_version(tree))

    assert digest(name, tree) == expected, f"vLLM's {name} has changed: read it again before trusting {NAMES[name]}"


def test_a_version_that_nobody_read_fails_whatever_its_sources() -> None:
    with pytest.raises(LookupError, match=r"0\.31 was never read"):
        known(next(iter(NAMES)), "0.31")


@pytest.mark.parametrize("name", NAMES)
def test_every_version_was_read_and_those_that_are_equal_are_written_once(name: str) -> None:
    entry = READ[NAMES[name]][name]
    if isinstance(entry, dict):
        assert tuple(entry) == SUPPORTED
        assert len(set(entry.values())) > 1


def test_every_file_of_ours_that_the_table_names_is_there() -> None:
    for names in READ:
        for name in names.replace(" and ", ", ").split(", "):
            assert (ENGINE / name).is_file(), name


def test_a_change_of_one_function_is_found_and_shown(tmp_path: Path) -> None:
    old, changed = installed_tree(), "vllm.v1.engine.async_llm:AsyncLLM.abort"
    for name in (*NAMES, "vllm.envs", "vllm.engine.arg_utils"):
        copy_module(name.partition(":")[0], old, tmp_path)
    (tmp_path / "vllm" / "_version.py").write_text("__version__ = version = '0.34.0'\n")
    assert list(differences(old, tmp_path)) == []

    module = tmp_path / "vllm" / "v1" / "engine" / "async_llm.py"
    body = source(changed, tmp_path)
    module.write_text(module.read_text().replace(body, body + "        return None\n"))
    shown = "".join(differences(old, tmp_path))
    assert shown.count("===") == 1
    assert f'residents.py: "{changed}"' in shown
    assert "+        return None" in shown

    variables = tmp_path / "vllm" / "envs.py"
    marker = '    "VLLM_API_KEY": '
    variables.write_text(variables.read_text().replace(marker, f'    "VLLM_LOG_EVERYTHING": None,\n{marker}'))
    shown = "".join(differences(old, tmp_path))
    assert "cached blocks out? VLLM_LOG_EVERYTHING\n" in shown

    module.unlink()
    assert "vLLM has no vllm.v1.engine.async_llm any more" in "".join(differences(old, tmp_path))


def copy_module(module: str, old: Path, new: Path) -> None:
    stem = Path(*module.split("."))
    path = stem / "__init__.py" if (old / stem).is_dir() else stem.with_suffix(".py")
    (new / path).parent.mkdir(parents=True, exist_ok=True)
    (new / path).write_text((old / path).read_text())
