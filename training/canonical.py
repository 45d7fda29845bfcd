"""The bytes of an adapter, made independent of who wrote them and where.

PEFT writes sets in hash order, the path of the base model, and a README. `canonicalise` keeps what an engine
reads, in one order: equal weights and settings give equal files, in every process.
"""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file, save_file

from registry.client import canonical_config
from registry.errors import AdapterInvalid
from registry.manifest import CONFIG_FILE, WEIGHTS_FILE
from training.errors import AdapterUnreadable


def canonicalise(source: Path, target: Path) -> None:
    """Write the canonical form of the PEFT directory `source` into the existing directory `target`.

    The result holds ``adapter_config.json`` (sorted keys and lists, no path of any base model) and
    ``adapter_model.safetensors`` (names in order, dtypes kept), and nothing else.

    Raises:
        AdapterUnreadable: naming the file that is missing or damaged.
    """
    config = source / CONFIG_FILE
    weights = source / WEIGHTS_FILE
    for file in (config, weights):
        if not file.is_file():
            raise AdapterUnreadable(f"{source} has no {file.name}", field=file.name)
    try:
        (target / CONFIG_FILE).write_bytes(canonical_config(config.read_bytes()))
    except AdapterInvalid as exc:
        raise AdapterUnreadable(f"{config}: {exc.message}", field=CONFIG_FILE) from exc
    tensors = load_file(weights)
    save_file({name: tensors[name].contiguous() for name in sorted(tensors)}, target / WEIGHTS_FILE, {"format": "pt"})
    (target / WEIGHTS_FILE).chmod(0o644)  # safetensors creates files that only their owner may read
