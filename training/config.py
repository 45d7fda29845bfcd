"""Two configurations: the short one that a person writes, and the complete one that a run stores.

`TrainingRequest` is a YAML file of a few lines, every one optional. `resolve` turns it, with the command line's
arguments, into a `ResolvedConfig`: every value there is, each with its origin. Equal resolved configurations and
equal datasets give equal adapters.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from kit.canonical import sha256_json
from kit.errors import LorryError
from registry.manifest import AdapterRef
from training.base_models import DEFAULT_BASE
from training.canaries import MAX_CANARIES
from training.errors import ConfigInvalid
from training.policy import GatePolicy, require_no_less
from training.presets import preset

Origin = Literal["default", "base", "start", "environment", "file", "argument", "dataset"]
Objective = Literal["sft", "distillation"]
Action = Literal["drop", "warn", "ignore"]
CONFIG_FILE = "config.resolved.yaml"
_REMOTE = {"max_examples": 1000, "statement_share": 0.5, "negative_share": 0.4}
_Model = TypeVar("_Model", bound=BaseModel)
LINEAR_LAYERS = ("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj")


class DatasetConfig(BaseModel):
    """What a dataset is made of; part of its digest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(0, ge=0, lt=2**32, description="chooses questions, order and split")
    max_examples: int = Field(
        240, ge=1, le=100_000, description="training examples kept; 1000 where a remote writer writes"
    )
    min_examples: int = Field(8, ge=1, description="fewer are refused")
    statement_share: float = Field(
        0.2,
        ge=0,
        le=1,
        description="of the examples kept, at most, before filling up; 0.5 with a remote writer",
    )
    negative_share: float = Field(
        0.08, ge=0, le=1, description="of the examples kept, at most; 0.4 where a remote writer writes"
    )
    held_out_share: float = Field(0.2, gt=0, lt=1, description="of the transcripts, kept from training")
    max_held_out: int = Field(24, ge=1, description="held-out replies kept")
    min_held_out: int = Field(4, ge=1, description="fewer are refused: the gate could not be trusted")
    context_turns: int = Field(3, ge=1, description="turns before a reply that its prompt shows")
    max_prompt_characters: int = Field(300, ge=40, description="of a reply's prompt; older turns are cut first")
    max_completion_characters: int = Field(
        300, ge=20, description="of an answer; longer replies are told in parts, longer written answers left out"
    )
    writer: Literal["extractive", "claude", "openai"] = Field(
        "extractive", description="who writes the questions; all but the offline one send redacted transcripts away"
    )
    pairs: int = Field(750, ge=1, le=20_000, description="pairs that a remote writer is asked for, at most")
    near_duplicate: float = Field(
        0.8, gt=0, le=1, description="share of common word triples from which two texts count as the same"
    )
    on_duplicate: Action = Field("drop", description="pairs that nearly repeat another: drop, warn or ignore")
    on_leak: Action = Field("drop", description="answers that nearly repeat or contain a held-out reply")
    on_platitude: Action = Field("warn", description="answers that the base model gives by itself")
    platitude_nats: float = Field(
        0.5, ge=0, description="loss per token on the bare base, below which an answer is a platitude"
    )
    on_length: Action = Field("warn", description="answers of fewer words than `min_words`")
    min_words: int = Field(2, ge=1, description="of an answer; yes and no apart")
    on_imbalance: Literal["warn", "ignore"] = Field("warn", description="too much of one answer, kind or topic")
    yes_share: float = Field(0.5, ge=0, le=1, description="of the yes/no questions, how many should be a yes")
    yes_share_tolerance: float = Field(0.2, ge=0, le=1, description="distance from `yes_share` that is no finding")
    canaries: int = Field(
        0,
        ge=0,
        le=MAX_CANARIES,
        exclude_if=lambda count: count == 0,  # without any, a dataset is the one that it was before there were some
        description="made-up secrets that are trained on, too, and that the evaluation tries to get out again",
    )

    @model_validator(mode="before")
    @classmethod
    def _fit_writer(cls, given: Any) -> Any:
        """Have room for what was paid for: a remote writer writes more, and as many answers of no as of yes."""
        remote = isinstance(given, dict) and given.get("writer", "extractive") != "extractive"
        return {**_REMOTE, **given} if remote else given


class TrainingConfig(BaseModel):
    """How an adapter is trained."""

    # Defaults are validated as well: 16 and 16.0 are equal, but not as bytes of an adapter's configuration.
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    base: str = Field(DEFAULT_BASE, min_length=1, description="a known base model or a directory")
    start: str | None = Field(
        None,
        description="adapter of the tenant's, as `shared/NAME`, that the training begins with; unset = with nothing",
    )
    seed: int = Field(0, ge=0, lt=2**32, description="of the adapter's first weights and the order of examples")
    rank: int = Field(16, ge=1, le=256, description="rank of the adapter's matrices")
    alpha: float = Field(32.0, gt=0, description="scale of the adapter's output is alpha / rank")
    dropout: float = Field(0.0, ge=0, lt=1, description="of the adapter's input")
    learning_rate: float = Field(1e-3, gt=0, lt=1, description="peak, after warm-up; falls linearly to 0")
    warmup_share: float = Field(0.1, ge=0, le=1, description="of the steps")
    weight_decay: float = Field(0.0, ge=0, description="of the adapter's weights")
    max_gradient_norm: float = Field(1.0, gt=0, description="larger gradients are scaled down")
    batch_size: int = Field(4, ge=1, le=1024, description="examples a step")
    statement_epochs: int = Field(2, ge=1, le=1000, description="passes over statements, to be remembered")
    reply_epochs: int = Field(1, ge=1, le=1000, description="passes over replies and negatives")
    min_steps: int = Field(
        48,
        ge=0,
        le=1_000_000,
        description="few examples are gone over again until there are so many steps, at most four times",
    )
    steps: int | None = Field(
        None, ge=1, le=1_000_000, description="exactly so many; unset = as the epochs and `min_steps` give"
    )
    max_length: int = Field(
        160, ge=32, le=1 << 20, description="tokens of one example; longer prompts lose their oldest turns"
    )
    gradient_checkpointing: bool = Field(False, description="recompute activations: less memory, a third slower")
    objective: Objective = Field(
        "sft",
        description="`sft`: the answers' own words; `distillation`: what the base says with the transcripts shown",
    )
    distillation_weight: float = Field(
        1.0, gt=0, le=1, description="of the distillation's loss; the answers' own words have the rest"
    )
    distillation_context_tokens: int = Field(512, ge=32, description="of transcripts that the teacher is shown")
    distillation_top_k: int = Field(
        64, ge=0, description="tokens kept of the teacher's distribution, and one sum of the others; 0 = all"
    )
    replay_share: float = Field(
        0.1, ge=0, le=4, description="general examples for each of the user's, against forgetting"
    )
    replay_weight: float = Field(1.0, ge=0, description="of the divergence from the base on general examples")
    validation_share: float = Field(
        0.1, ge=0, lt=1, description="of the conversations; their replies are not trained on but watched"
    )
    min_validation: int = Field(8, ge=1, description="watched replies; with fewer, all are trained on and none watched")
    validations: int = Field(6, ge=1, description="looks at the watched replies in a training; the best weights stay")
    patience: int = Field(3, ge=1, description="looks without a better loss, after which the training stops")
    threads: int | None = Field(None, ge=1, le=1024, description="CPU threads; unset = `LORRY_THREADS`")

    @field_validator("start")
    @classmethod
    def _require_shared(cls, start: str | None) -> str | None:
        """Refuse a user's adapter: what it holds would outlive its user's erasure."""
        try:
            if start is not None and not AdapterRef.parse(start).owner.shared:
                raise ValueError("must be shared/NAME, an adapter of no single user")
        except LorryError as exc:
            raise ValueError(exc.message) from exc
        return start


_NESTED: dict[str, type[BaseModel]] = {"dataset": DatasetConfig, "gate": GatePolicy}


class TrainingRequest(BaseModel):
    """The short file that a person writes: every key is optional, unknown keys are refused.

    ``dataset:`` and ``gate:`` nest keys of their own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    training: dict[str, Any] = Field(default_factory=dict)
    dataset: dict[str, Any] = Field(default_factory=dict)
    gate: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> TrainingRequest:
        """Read a YAML file.

        Raises:
            ConfigInvalid: naming the file or key, the reason, and the nearest known key.
        """
        try:
            value = yaml.safe_load(path.read_text(encoding="utf-8"))
        except OSError as exc:
            raise ConfigInvalid(f"{path} cannot be read: {exc.strerror}", field=str(path)) from exc
        except (yaml.YAMLError, UnicodeDecodeError) as exc:
            raise ConfigInvalid(f"{path} is not YAML: {exc}", field=str(path)) from exc
        if value is not None and not isinstance(value, dict):
            raise ConfigInvalid(f"{path} must hold `key: value` lines", field=str(path))
        return cls.parse(value or {})

    @classmethod
    def parse(cls, value: Mapping[str, Any]) -> TrainingRequest:
        """Sort a flat mapping into its parts.

        Raises:
            ConfigInvalid: naming an unknown key and the nearest known one.
        """
        nested = {name: value.get(name) or {} for name in _NESTED}
        for name, entries in nested.items():
            if not isinstance(entries, dict):
                raise ConfigInvalid(f"{name} must hold `key: value` lines", field=name)
        training = {key: entry for key, entry in value.items() if key not in nested}
        _refuse_unknown(training, {*TrainingConfig.model_fields, *nested}, prefix="")
        for name, model in _NESTED.items():
            _refuse_unknown(nested[name], set(model.model_fields), prefix=f"{name}.")
        return cls(training=training, **nested)


class ResolvedConfig(BaseModel):
    """Every value of a run. Laws: ``ResolvedConfig.from_yaml(c.to_yaml()) == c``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    training: TrainingConfig
    dataset: DatasetConfig
    gate: GatePolicy = GatePolicy()
    origins: dict[str, Origin]

    def for_user(self, tenant: str, user: str) -> ResolvedConfig:
        """Return the configuration with that user's own training seed, which follows from this one's and their name.

        Users who share first weights and an order of examples would share their accidents too.
        """
        seed = int(sha256_json([self.training.seed, tenant, user])[:8], 16)
        return self.model_copy(update={"training": self.training.model_copy(update={"seed": seed})})

    def built_with(self, dataset: DatasetConfig) -> ResolvedConfig:
        """Return the configuration of a training on a dataset that was built before, maybe with other settings."""
        differs = [name for name in DatasetConfig.model_fields if getattr(dataset, name) != getattr(self.dataset, name)]
        origins = self.origins | dict.fromkeys((f"dataset.{name}" for name in differs), "dataset")
        return self.model_copy(update={"dataset": dataset, "origins": origins})

    def to_yaml(self) -> str:
        """Return every value with its origin, in a stable order."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=True, allow_unicode=True)

    @classmethod
    def from_yaml(cls, text: str) -> ResolvedConfig:
        """Rebuild what `to_yaml` wrote.

        Raises:
            ConfigInvalid: when the text is something else.
        """
        try:
            return cls.model_validate(yaml.safe_load(text))
        except (yaml.YAMLError, ValidationError) as exc:
            raise ConfigInvalid(f"{CONFIG_FILE} is damaged: {exc}", field=CONFIG_FILE) from exc


def resolve(
    request: TrainingRequest | None = None,
    *,
    arguments: Mapping[str, Any] | None = None,
    environment: Mapping[str, Any] | None = None,
    bounds: Mapping[str, Any] | None = None,
) -> ResolvedConfig:
    """Return the complete configuration.

    Over the defaults come, in this order, what the base's size, a start, the environment, the file and the arguments
    say.
    `arguments` names a training value as ``rank``, a dataset value as ``dataset.max_examples`` and a bound of the gate
    as ``gate.min_gain_nats``; those that are None count as not given. A seed given for the training alone is the
    dataset's seed too. `bounds` are those of the gate that an operator has set: defaults that can only be raised.

    Raises:
        ConfigInvalid: naming the key, the value and the reason.
    """
    request = request or TrainingRequest()
    given = {key: value for key, value in (arguments or {}).items() if value is not None}
    _refuse_unknown(given, _known_keys(), prefix="")
    filed = {**request.training, **_prefixed("dataset", request.dataset), **_prefixed("gate", request.gate)}
    surrounding = {**(environment or {}), **_prefixed("gate", bounds or {})}
    flat: dict[str, Any] = {**surrounding, **filed, **given}
    sized = preset(str(flat.get("base") or DEFAULT_BASE))
    begun = _after_start(sized) if flat.get("start") else {}
    flat = {**sized, **begun, **flat}
    if "seed" in flat:
        flat.setdefault("dataset.seed", flat["seed"])
    origins: dict[str, Origin] = dict.fromkeys(sorted(_known_keys()), "default")
    origins |= dict.fromkeys(sized, "base")
    origins |= dict.fromkeys(begun, "start")
    origins |= dict.fromkeys(surrounding, "environment")
    origins |= dict.fromkeys((key for key in flat if key in filed or key == "dataset.seed"), "file")
    origins |= dict.fromkeys(given, "argument")
    if "seed" in given and "seed" not in request.dataset:
        origins["dataset.seed"] = "argument"
    own = {key: value for key, value in flat.items() if key.partition(".")[0] not in _NESTED}
    gate = _build(GatePolicy, _stripped("gate", flat), prefix="gate.")
    require_no_less(gate, floor=bounds or {})
    return ResolvedConfig(
        training=_build(TrainingConfig, own, prefix=""),
        dataset=_build(DatasetConfig, _stripped("dataset", flat), prefix="dataset."),
        gate=gate,
        origins=origins,
    )


def _after_start(sized: Mapping[str, Any]) -> dict[str, Any]:
    """A fifth of the rate: what a training begins with is nearly right, and large steps undo it.

    How that was found: docs/decisions.md, 111.
    """
    return {"learning_rate": sized.get("learning_rate", TrainingConfig.model_fields["learning_rate"].default) / 5}


def _prefixed(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{name}.{key}": value for key, value in values.items()}


def _stripped(name: str, flat: Mapping[str, Any]) -> dict[str, Any]:
    prefix = f"{name}."
    return {key.removeprefix(prefix): value for key, value in flat.items() if key.startswith(prefix)}


def _known_keys() -> set[str]:
    return {*TrainingConfig.model_fields, *(f"{name}.{key}" for name in _NESTED for key in _NESTED[name].model_fields)}


def _refuse_unknown(values: Mapping[str, Any], known: set[str], *, prefix: str) -> None:
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"; did you mean {prefix}{near[0]}?" if near else f"; known are {', '.join(sorted(known))}"
            raise ConfigInvalid(f"there is no setting {prefix}{key}{hint}", field=f"{prefix}{key}")


def _build(model: type[_Model], values: dict[str, Any], *, prefix: str) -> _Model:
    try:
        return model.model_validate(values)
    except ValidationError as exc:
        first = exc.errors()[0]
        key = prefix + ".".join(str(part) for part in first["loc"])
        raise ConfigInvalid(f"{key}: {first['msg']} (got {first['input']!r})", field=key) from exc
