"""`adapter_config.json`: read it without trusting it, and write it in one way only.

PEFT writes its sets in hash order and the path of the base model that happened to be on the
training machine; so one adapter gives different bytes on different days. `canonical_config` keeps
what the adapter *is* and drops where it was. Laws: ``canonical_config(canonical_config(b)) == canonical_config(b)``;
the result does not depend on the order of keys or of a set's members.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kit.canonical import canonical_json
from registry.artifact.untrusted import parse_json, printable
from registry.errors import AdapterInvalid
from registry.manifest import CONFIG_FILE, LoraShape

MAX_CONFIG_BYTES = 1 << 20
LINEAR_LAYERS = frozenset({"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"})

_WHEREABOUTS = ("base_model_name_or_path", "revision", "auto_mapping")
_SETS = ("target_modules", "exclude_modules")
_REASONS = {
    "use_dora": "DoRA adapters cannot share a batch with others",
    "alora_invocation_tokens": "activated LoRA (aLoRA) is not servable by vLLM",
    "lora_bias": "biases on the LoRA layers are not servable by vLLM",
    "modules_to_save": "whole modules beside the LoRA layers are not servable by vLLM",
    "rank_pattern": "every layer must have the declared rank",
    "alpha_pattern": "every layer must have the declared alpha",
    "trainable_token_indices": "changed embeddings are not servable by vLLM",
    "layer_replication": "replicated layers are not servable by vLLM",
    "use_qalora": "QALoRA is not servable by vLLM",
    "use_bdlora": "block-diagonal LoRA is not servable by vLLM",
}
# What these say is either checked below or has no effect on an adapter that is only served.
_HARMLESS = frozenset(
    {
        "peft_type", "task_type", "r", "lora_alpha", "target_modules", "bias", "init_lora_weights", "use_rslora",
        "lora_dropout", "inference_mode", "peft_version", "exclude_modules", "layers_to_transform", "layers_pattern",
        "megatron_core", "qalora_group_size", "runtime_config",
    }
)  # fmt: skip
_PLAIN_INITS: tuple[Any, ...] = (None, True, False, "gaussian")


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """What serving needs to know of an adapter's configuration, checked."""

    rank: int
    alpha: float
    target_modules: tuple[str, ...]

    @property
    def shape(self) -> LoraShape:
        """The same, as a manifest declares it."""
        return LoraShape(rank=self.rank, alpha=self.alpha, target_modules=self.target_modules)


def canonical_config(data: bytes) -> bytes:
    """Return the one way to write this configuration: sorted keys and sets, no whereabouts.

    Raises:
        AdapterInvalid: when the bytes are not one JSON object.
    """
    config = _read(data)
    for name in _WHEREABOUTS:
        if name in config:
            config[name] = None
    for name in _SETS:
        members = config.get(name)
        if isinstance(members, list) and all(isinstance(member, str) for member in members):
            config[name] = sorted(set(members))
    return canonical_json(config)


def named_base(data: bytes) -> str | None:
    """Return what the configuration calls its base model, a model's name or a path; None when it does not say.

    Raises:
        AdapterInvalid: when the bytes are not one JSON object.
    """
    name = _read(data).get("base_model_name_or_path")
    return name if isinstance(name, str) and name else None


def parse_config(data: bytes, *, max_rank: int) -> AdapterConfig:
    """Read a PEFT LoRA configuration that vLLM can serve beside others.

    The base model that it names is ignored: the manifest says which base it is.

    Raises:
        AdapterInvalid: naming the field and why it is refused.
    """
    parsed, errors = inspect_config(data, max_rank=max_rank)
    if parsed is None:
        raise errors[0]
    return parsed


def inspect_config(data: bytes, *, max_rank: int) -> tuple[AdapterConfig | None, list[AdapterInvalid]]:
    """Read a configuration as `parse_config` does, and name everything that is wrong; None = refused."""
    try:
        config = _read(data)
    except AdapterInvalid as exc:
        return None, [exc]
    errors = list(_unservable(config))
    found: dict[str, Any] = {}
    for name, read in (
        ("rank", lambda: _rank(config.get("r"), max_rank=max_rank)),
        ("alpha", lambda: _alpha(config.get("lora_alpha"))),
        ("target_modules", lambda: _target_modules(config.get("target_modules"))),
    ):
        try:
            found[name] = read()
        except AdapterInvalid as exc:
            errors.append(exc)
    return (None if errors else AdapterConfig(**found)), errors


def _unservable(config: dict[str, Any]) -> Iterator[AdapterInvalid]:
    """Yield whatever would make the served adapter differ from the trained one, known to us or not."""
    if config.get("peft_type") != "LORA":
        yield _invalid("peft_type", f"must be LORA, not {config.get('peft_type')!a}"[:200])
    if config.get("task_type") not in (None, "CAUSAL_LM"):
        yield _invalid("task_type", f"must be CAUSAL_LM, not {config['task_type']!a}"[:200])
    if config.get("bias", "none") != "none":
        yield _invalid("bias", f"must be none, not {config['bias']!a}"[:200])
    if config.get("init_lora_weights", True) not in _PLAIN_INITS:
        reason = "changes the base model's weights, which others share; convert it to a plain LoRA first"
        yield _invalid("init_lora_weights", f"{printable(str(config['init_lora_weights']))} {reason}")
    for name in ("use_rslora", "inference_mode"):
        if not isinstance(config.get(name, False), bool):
            yield _invalid(name, "must be true or false")
    for name, value in config.items():
        if value and name not in _HARMLESS and name not in _WHEREABOUTS:
            known = _REASONS.get(name)
            yield _invalid(name, known or "is not a feature that Lorry knows how to serve", states=known is not None)


def _rank(value: Any, *, max_rank: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise _invalid("r", f"must be a positive whole number, not {value!a}"[:200])
    if value > max_rank:
        raise _invalid("r", above_limit(value, max_rank=max_rank), states=True)
    return value


def above_limit(rank: int, *, max_rank: int) -> str:
    """Return why a rank is refused, and which setting decides."""
    setting = "LORRY_REGISTRY_MAX_RANK; LORRY_MAX_LORA_RANK for `lorry up`"
    return f"rank {str(rank)[:40]} is above the limit of {max_rank} ({setting})"


def _alpha(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
        raise _invalid("lora_alpha", f"must be a positive number, not {value!a}"[:200])
    if value > 1e6:
        raise _invalid("lora_alpha", "must be at most 1000000")
    return float(value)


def _target_modules(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(name, str) for name in value):
        raise _invalid("target_modules", "must be a list of names; a pattern is not accepted")
    kinds = {name.rsplit(".", 1)[-1] for name in value}
    if strange := sorted(kinds - LINEAR_LAYERS):
        raise _invalid("target_modules", f"{printable(strange[0])} is not one of the seven linear layers")
    return tuple(sorted(kinds))


def _read(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_CONFIG_BYTES:
        raise AdapterInvalid(f"{CONFIG_FILE} is larger than {MAX_CONFIG_BYTES} bytes", field=CONFIG_FILE)
    try:
        config = parse_json(data)
    except ValueError as exc:
        raise AdapterInvalid(f"{CONFIG_FILE} is not JSON: {exc}"[:300], field=CONFIG_FILE) from exc
    if not isinstance(config, dict):
        raise AdapterInvalid(f"{CONFIG_FILE} must hold one JSON object", field=CONFIG_FILE)
    return config


def _invalid(name: str, reason: str, *, states: bool = False) -> AdapterInvalid:
    """Return the refusal of a field; a reason that `states` is a sentence of its own, others go on from its name."""
    shown = printable(name)
    return AdapterInvalid(f"{CONFIG_FILE}: {shown}{':' if states else ''} {reason}", field=f"{CONFIG_FILE}:{shown}")
