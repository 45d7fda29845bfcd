"""The bytes of an adapter, made independent of who wrote them and where.

PEFT writes sets in hash order, the path of the base model, and a README. `canonicalise` keeps what an engine
reads, in one order: equal weights and settings give equal files, in every process.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from registry.manifest import CONFIG_FILE, WEIGHTS_FILE
from training.errors import AdapterUnreadable

_SETS = ("target_modules", "exclude_modules", "modules_to_save", "layers_to_transform", "target_parameters")


def canonicalise(source: Path, target: Path, *, base_id: str) -> None:
    """Write the canonical form of the PEFT directory `source` into the existing directory `target`.

    The result holds ``adapter_config.json`` (sorted keys and lists, `base_id` in place of a path) and
    ``adapter_model.safetensors`` (names in order, dtypes kept), and nothing else.

    Raises:
        AdapterUnreadable: naming the file that is missing or damaged.
    """
    (target / CONFIG_FILE).write_bytes(canonical_config(_read_config(source / CONFIG_FILE), base_id=base_id))
    weights = source / WEIGHTS_FILE
    if not weights.is_file():
        raise AdapterUnreadable(f"{source} has no {WEIGHTS_FILE}", field=WEIGHTS_FILE)
    tensors = load_file(weights)
    save_file({name: tensors[name].contiguous() for name in sorted(tensors)}, target / WEIGHTS_FILE, {"format": "pt"})
    (target / WEIGHTS_FILE).chmod(0o644)


def canonical_config(config: dict[str, Any], *, base_id: str) -> bytes:
    """Return the canonical bytes of a PEFT configuration for the base model `base_id`."""
    config = dict(config)
    for key in _SETS:
        if isinstance(config.get(key), list):
            config[key] = sorted(config[key])
    config |= {"base_model_name_or_path": base_id, "revision": None, "inference_mode": True}
    return (json.dumps(config, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def _read_config(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except OSError as exc:
        raise AdapterUnreadable(f"{path.parent} has no {CONFIG_FILE}", field=CONFIG_FILE) from exc
    except ValueError as exc:
        raise AdapterUnreadable(f"{path} is not JSON: {exc}", field=CONFIG_FILE) from exc
    if not isinstance(value, dict):
        raise AdapterUnreadable(f"{path} must hold an object", field=CONFIG_FILE)
    return value
