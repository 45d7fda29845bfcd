"""Is this an adapter that an engine can serve beside thousands of others?

Three questions: does the draft declare something acceptable (before upload), does the configuration say the same, and
do the weights fit both and the base model. The weights are looked at while they stream by, in bounded memory, and
everything that is found is named, not only the first thing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kit.canonical import canonical_json
from registry.artifact.findings import Finding, ValidationReport
from registry.artifact.layout import read_layout
from registry.artifact.peft_config import (
    LINEAR_LAYERS,
    MAX_CONFIG_BYTES,
    above_limit,
    canonical_config,
    inspect_config,
)
from registry.artifact.safetensors_header import LENGTH_BYTES, header_length
from registry.artifact.tensors import LoraPair
from registry.artifact.untrusted import printable
from registry.artifact.values import ValueCheck
from registry.errors import AdapterInvalid
from registry.manifest import ADAPTER_FILES, CONFIG_FILE, WEIGHTS_FILE, BaseShape, Declaration, Draft, LoraShape

CHECKS = ("configuration", "header", "tensors", "values")
PICKLED = "adapter_model.bin"
_UNPICKLE = (
    f"{WEIGHTS_FILE} is missing, and {PICKLED} is a pickle, which can run code and is never read:"
    " save the adapter again with save_pretrained(directory, safe_serialization=True)"
)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The most that one adapter may be."""

    max_adapter_bytes: int
    max_rank: int


def check_draft(draft: Draft, *, limits: Limits) -> bytes:
    """Refuse what no upload could make valid; return the canonical configuration.

    Raises:
        AdapterInvalid: naming the field.
    """
    check_declaration(draft, limits=limits)
    config = canonical_config(canonical_json(draft.config))
    check_config(config, declared=draft, limits=limits).require()
    return config


def check_declaration(declared: Declaration, *, limits: Limits) -> None:
    """Refuse what is declared wrongly, whatever the files hold.

    Raises:
        AdapterInvalid: naming the field.
    """
    check_file_names(file.path for file in declared.files)
    total = sum(file.size_bytes for file in declared.files)
    if total > limits.max_adapter_bytes:
        raise AdapterInvalid(
            f"the files have {total} bytes together; at most {limits.max_adapter_bytes} are accepted", field="files"
        )
    config_bytes = next(file.size_bytes for file in declared.files if file.path == CONFIG_FILE)
    if config_bytes > MAX_CONFIG_BYTES:
        raise AdapterInvalid(f"{CONFIG_FILE} is larger than {MAX_CONFIG_BYTES} bytes", field=CONFIG_FILE)
    if declared.lora.rank > limits.max_rank:
        raise AdapterInvalid(above_limit(declared.lora.rank, max_rank=limits.max_rank), field="lora.rank")
    if not declared.lora.target_modules or not set(declared.lora.target_modules) <= LINEAR_LAYERS:
        raise AdapterInvalid("only the seven linear layers can be targets", field="lora.target_modules")


def check_file_names(names: Iterable[str]) -> None:
    """Refuse a set of files that is not exactly an adapter's.

    Raises:
        AdapterInvalid: naming the file that is missing, extra or repeated.
    """
    found = sorted(names)
    if missing := sorted(ADAPTER_FILES - set(found)):
        pickled = PICKLED in found and WEIGHTS_FILE in missing
        raise AdapterInvalid(_UNPICKLE if pickled else f"{missing[0]} is missing", field=missing[0])
    if extra := sorted(set(found) - ADAPTER_FILES):
        raise AdapterInvalid(f"{printable(extra[0])} does not belong to an adapter", field=printable(extra[0]))
    if len(found) != len(ADAPTER_FILES):
        raise AdapterInvalid("a file is declared twice", field="files")


def check_config(config: bytes, *, declared: Declaration, limits: Limits) -> ValidationReport:
    """Compare a configuration with what can be served and with what was declared of it."""
    parsed, errors = inspect_config(config, max_rank=limits.max_rank)
    findings = [Finding.of(error, code="configuration") for error in errors]
    if parsed is not None:
        if canonical_config(config) != config:
            message = f"{CONFIG_FILE} is not in canonical form"
            findings.append(Finding(code="not-canonical", field=CONFIG_FILE, message=message))
        findings += _undeclared(declared.lora, parsed.shape)
    return ValidationReport.collect(findings, checks=CHECKS[:1])


class WeightsInspector:
    """Looks at a weights file as its bytes stream by, in pieces of any length; keeps at most its header.

    What comes after something that makes no sense is not looked at any more.
    """

    def __init__(self, *, size_bytes: int, shape: LoraShape, base: BaseShape | None = None) -> None:
        """Expect a file.

        Args:
            size_bytes: the whole file's size.
            shape: the LoRA that the configuration describes.
            base: the base model that it must fit; None leaves that out.
        """
        self._size_bytes = size_bytes
        self._shape = shape
        self._base = base
        self._start = bytearray()
        self._wanted = LENGTH_BYTES
        self._values: ValueCheck | None = None
        self._findings: list[Finding] = []
        self._gave_up = False
        self.pairs: Sequence[LoraPair] = ()

    def update(self, data: bytes | memoryview) -> None:
        """Look at the next bytes."""
        rest = memoryview(data)
        while rest and not self._gave_up:
            if self._values is not None:
                self._values.update(rest)
                return
            missing = rest[: self._wanted - len(self._start)]
            self._start += missing
            rest = rest[len(missing) :]
            if len(self._start) == self._wanted:
                self._read_start()

    def finish(self) -> list[Finding]:
        """Return everything that is wrong with the file."""
        if self._values is None and not self._gave_up:
            self._give_up(Finding(code="header", field=WEIGHTS_FILE, message=f"{WEIGHTS_FILE} ends inside its header"))
        return self._findings + (list(self._values.findings.values()) if self._values else [])

    def _read_start(self) -> None:
        """Read the header's length, or the header, whichever has just come."""
        start = bytes(self._start)
        try:
            if len(start) == LENGTH_BYTES:
                self._wanted += header_length(start)
                return
            layout = read_layout(start, size_bytes=self._size_bytes, shape=self._shape, base=self._base)
        except AdapterInvalid as exc:
            self._give_up(Finding.of(exc, code="header"))
            return
        self.pairs = layout.pairs
        self._findings += layout.findings
        self._values = ValueCheck(layout.tensors)
        self._start.clear()

    def _give_up(self, finding: Finding) -> None:
        self._findings.append(finding)
        self._gave_up = True
        self._start.clear()


def _undeclared(declared: LoraShape, found: LoraShape) -> list[Finding]:
    findings = []
    for name in ("rank", "alpha", "target_modules"):
        ours, theirs = getattr(found, name), getattr(declared, name)
        if name == "target_modules":
            theirs = tuple(sorted(theirs))
        if ours != theirs:
            message = f"the draft declares {name} {theirs}, {CONFIG_FILE} has {ours}"[:1000]
            findings.append(Finding(code="undeclared", field=f"lora.{name}", message=message))
    return findings
