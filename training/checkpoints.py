"""Where a training that was killed goes on: its whole state after one step, in one file.

A checkpoint's name carries the digest of its bytes, and it appears whole or not at all. It belongs to one set of
inputs (dataset, configuration, base, threads, packages): a training of any other begins anew beside it. A damaged one
counts as none, since beginning anew gives the same adapter and only costs time.
"""

from __future__ import annotations

import json
import logging
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from kit.canonical import sha256_file

_NAME = re.compile(r"step-(\d{8})-([0-9a-f]{64})\.safetensors")
_STATE = "state"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What was true after `step` steps: tensors by name, and JSON values."""

    step: int
    tensors: Mapping[str, torch.Tensor]
    state: Mapping[str, Any]


class CheckpointFolder:
    """The checkpoints of one training, of which the newest is kept."""

    def __init__(self, directory: Path, *, inputs: str) -> None:
        """Keep checkpoints in `directory`, which is made when needed; `inputs` is the digest of what is trained."""
        self._directory, self._inputs = directory, inputs

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint, whole and on the disk before it is visible, and remove those before it.

        Raises:
            OSError: when the disk is full or fails; the checkpoint before stays.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".partial-", dir=self._directory)
        os.close(handle)
        staging = Path(name)
        metadata = {_STATE: json.dumps({"inputs": self._inputs, "step": checkpoint.step, **checkpoint.state})}
        try:
            save_file({key: tensor.contiguous() for key, tensor in checkpoint.tensors.items()}, staging, metadata)
            _sync(staging)
            final = self._directory / f"step-{checkpoint.step:08d}-{sha256_file(staging)}.safetensors"
            staging.replace(final)
            _sync(self._directory)
        except SafetensorError as exc:
            raise OSError(f"the checkpoint could not be written: {exc}") from exc
        finally:
            staging.unlink(missing_ok=True)
        for path in self._paths():
            if path != final:
                path.unlink(missing_ok=True)

    def load(self) -> Checkpoint | None:
        """Return the newest whole checkpoint of these inputs; None when there is none."""
        for path in self._paths():
            found = _NAME.fullmatch(path.name)
            try:
                if found and sha256_file(path) == found[2]:
                    checkpoint = _read(path, inputs=self._inputs)
                    if checkpoint is not None:
                        return checkpoint
                else:
                    _log.warning("a checkpoint is damaged; the training goes on from an earlier step")
            except (OSError, SafetensorError, ValueError, KeyError):
                _log.warning("a checkpoint cannot be read; the training goes on from an earlier step")
        return None

    def remove(self) -> None:
        """Delete every checkpoint, and the folder when nothing else is in it."""
        for path in [*self._paths(), *self._directory.glob(".partial-*")]:
            path.unlink(missing_ok=True)
        try:
            self._directory.rmdir()
        except OSError:
            pass  # it is gone, or holds something of somebody else's

    def _paths(self) -> list[Path]:
        """Newest first."""
        return sorted(self._directory.glob("step-*.safetensors"), reverse=True)


def _read(path: Path, *, inputs: str) -> Checkpoint | None:
    with safe_open(path, framework="pt") as file:
        state = json.loads(file.metadata()[_STATE])
        if state.pop("inputs") != inputs:
            return None
        step = int(state.pop("step"))
        return Checkpoint(step=step, tensors={key: file.get_tensor(key) for key in file.keys()}, state=state)  # noqa: SIM118


def _sync(path: Path) -> None:
    """Wait until the disk has it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
