"""From a directory that PEFT saved to a draft that can be published.

The same checks as the registry's, so that a mistake is named before anything is sent.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kit.canonical import sha256_bytes
from kit.names import check_name
from registry.artifact.base_shape import check_fits
from registry.artifact.findings import ValidationReport
from registry.artifact.peft_config import canonical_config, parse_config
from registry.artifact.safetensors_header import LENGTH_BYTES, MAX_HEADER_BYTES, parse_header
from registry.artifact.tensors import check_tensors
from registry.artifact.validation import CHECKS, Limits, WeightsInspector, check_draft, check_file_names
from registry.errors import AdapterInvalid
from registry.manifest import (
    CONFIG_FILE,
    DEFAULT_ADAPTER,
    WEIGHTS_FILE,
    BaseIdentity,
    BaseShape,
    Draft,
    Lineage,
    LoraShape,
    ManifestFile,
    Owner,
)

# The registry's own limits may be lower; these are the most that any engine can hold.
_LIMITS = Limits(max_adapter_bytes=5 << 30, max_rank=512)
_CHUNK_BYTES = 256 << 10  # stays in the processor's cache between two looks
MODEL_CARD = "README.md"
"""What PEFT's `save_pretrained` puts beside an adapter: it is neither read nor published."""


def draft_from_directory(
    directory: Path,
    *,
    owner: Owner,
    base: BaseIdentity,
    adapter: str = DEFAULT_ADAPTER,
    version: int | None = None,
    lineage: Lineage | None = None,
    evaluation: Mapping[str, Any] | None = None,
    base_directory: Path | None = None,
) -> Draft:
    """Describe an adapter directory; reads and digests every byte once, changes none.

    The configuration is digested in its canonical form, which is also what is published.

    `base_directory` holds the base model; with it, the tensors' sizes are compared with the base's.

    Raises:
        InvalidName: when `adapter` is no name.
        AdapterInvalid: naming the file that is missing or extra, or the field or tensor that is refused; its details
            hold every finding.
        BaseModelMismatch: naming the first tensor that does not fit the base model.
    """
    check_name(adapter, field="adapter")
    config = read_config(directory)
    shape = parse_config(config, max_rank=_LIMITS.max_rank).shape
    weights, inspector = _inspect(directory / WEIGHTS_FILE, shape)
    draft = Draft(
        owner=owner,
        adapter=adapter,
        version=version,
        base=base,
        lora=shape,
        files=(
            ManifestFile(path=CONFIG_FILE, size_bytes=len(config), sha256=sha256_bytes(config)),
            weights,
        ),
        lineage=lineage or Lineage(),
        evaluation=dict(evaluation or {}),
        config=json.loads(config),
    )
    check_draft(draft, limits=_LIMITS)
    ValidationReport.collect(inspector.finish(), checks=CHECKS).require()
    if base_directory is not None:
        check_fits(inspector.pairs, BaseShape.read(base_directory))
    return draft


def check_fits_base(directory: Path, base_directory: Path) -> None:
    """Compare the sizes of an adapter's tensors with those of the base model's layers.

    Raises:
        AdapterInvalid: when the directory holds no adapter.
        BaseModelMismatch: naming the first tensor that does not fit.
    """
    shape = parse_config(read_config(directory), max_rank=_LIMITS.max_rank).shape
    weights = directory / WEIGHTS_FILE
    with weights.open("rb") as file:
        header = parse_header(file.read(LENGTH_BYTES + MAX_HEADER_BYTES), size_bytes=_size(weights))
    check_fits(check_tensors(header, shape=shape), BaseShape.read(base_directory))


def read_config(directory: Path) -> bytes:
    """Return the canonical configuration of a directory that holds exactly an adapter's files, and no links.

    PEFT's model card, a file `MODEL_CARD`, is passed over; it never leaves the directory.

    Raises:
        AdapterInvalid: when it holds something else.
    """
    if not directory.is_dir():
        raise AdapterInvalid(f"{directory} is not a directory", field=str(directory))
    check_file_names(path.name for path in directory.iterdir() if not is_model_card(path))
    for path in (directory / CONFIG_FILE, directory / WEIGHTS_FILE):
        if path.is_symlink():  # it may lead anywhere, and tomorrow elsewhere
            raise AdapterInvalid(f"{path.name} is a symbolic link; publish the file itself", field=path.name)
        if not path.is_file():
            raise AdapterInvalid(f"{path.name} is not a file", field=path.name)
    return canonical_config((directory / CONFIG_FILE).read_bytes())


def is_model_card(path: Path) -> bool:
    """Say whether a path of an adapter directory is the model card, which is left out of what is published."""
    return path.name == MODEL_CARD and path.is_file() and not path.is_symlink()


def _inspect(path: Path, shape: LoraShape) -> tuple[ManifestFile, WeightsInspector]:
    """Digest and look at the weights in one pass."""
    size_bytes, digest = _size(path), hashlib.sha256()
    inspector = WeightsInspector(size_bytes=size_bytes, shape=shape)
    chunk = memoryview(bytearray(_CHUNK_BYTES))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(chunk):
            digest.update(chunk[:count])
            inspector.update(chunk[:count])
    return ManifestFile(path=WEIGHTS_FILE, size_bytes=size_bytes, sha256=digest.hexdigest()), inspector


def _size(path: Path) -> int:
    size_bytes = path.stat().st_size
    if size_bytes == 0:
        raise AdapterInvalid(f"{path.name} is empty", field=path.name)
    return size_bytes
