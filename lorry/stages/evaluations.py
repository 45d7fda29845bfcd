"""Evaluations that were made, kept beside each user's run: what was measured of the same things is not measured again.

An evaluation takes a minute and more on a CPU. It depends on the adapters, datasets and secrets that were looked at, on
the base, on what was checked, and on the code that did it; all of them go into one digest.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Final

import training.evaluation
from kit.canonical import sha256_file, sha256_json
from kit.whole import write_whole
from training.evaluation import Checks, Contestant, EvaluationReport
from training.evaluation.report import UserEvaluation
from training.trainer import TrainedAdapter

_FILE: Final = "evaluation.json"
_INPUTS: Final = "inputs"
_LIBRARIES: Final = ("lorry", "torch", "transformers", "peft")


def inputs_of(
    contestants: Mapping[str, Contestant],
    *,
    rivals: Iterable[str],
    base_sha256: str,
    max_length: int,
    checks: Checks,
    device: str | None,
) -> str:
    """Return the digest of all that an evaluation depends on.

    `rivals` are version ids, which name content, and so are the names of the directories of starts.
    """
    users = {
        name: {
            "dataset": each.dataset.digest,
            "adapter": {path.name: sha256_file(path) for path in _files(each.adapter_directory)},
            "probes": [asdict(probe) for probe in each.probes],
            **({"start": each.start.name} if each.start else {}),
        }
        for name, each in contestants.items()
    }
    how = {"max_length": max_length, "checks": asdict(checks), "device": device, "code": _code()}
    return sha256_json({"users": users, "rivals": sorted(rivals), "base": base_sha256, **how})


def find_kept(trained: Mapping[str, TrainedAdapter], inputs: str, *, seed: int) -> EvaluationReport | None:
    """Return the evaluation of these users that was made of the same inputs; None unless all of it is there."""
    users = {}
    for user, run in trained.items():
        try:
            kept = json.loads((run.directory / _FILE).read_bytes())
            if kept[_INPUTS] != inputs:
                return None
            users[user] = UserEvaluation.from_json(kept)
        except (OSError, ValueError, KeyError, TypeError):
            return None  # none yet, or half of one
    return EvaluationReport(users=users, seed=seed)


def keep(trained: Mapping[str, TrainedAdapter], report: EvaluationReport, inputs: str) -> None:
    """Write each user's part beside their run."""
    for user, evaluation in report.users.items():
        write_whole(trained[user].directory / _FILE, json.dumps({_INPUTS: inputs, **evaluation.to_json()}, indent=2))


@functools.cache
def _code() -> dict[str, str]:
    """Return the digests of what evaluates, and the versions of what it stands on."""
    own = {path.name: sha256_file(path) for path in _files(Path(training.evaluation.__file__).parent)}
    return {**own, **{name: version(name) for name in _LIBRARIES}}


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if path.is_file())
