"""The gate's bounds: a training's own, and an operator's that no training may ask less than."""

from __future__ import annotations

from pathlib import Path

import pytest

from lorry.commands.job_settings import chosen_settings
from training.config import ResolvedConfig, TrainingRequest, resolve
from training.errors import ConfigInvalid
from training.policy import GatePolicy, GateSettings


def test_a_training_says_what_its_version_must_show() -> None:
    request = TrainingRequest.parse({"gate": {"max_general_loss": 0.02, "min_gain_low_nats": 0.1}})
    config = resolve(request, arguments={"gate.require_identified": "yes", "gate.min_gain_low_nats": "0.2"})
    assert config.gate == GatePolicy(max_general_loss=0.02, min_gain_low_nats=0.2, require_identified=True)
    origins = [config.origins[f"gate.{name}"] for name in ("max_general_loss", "min_gain_low_nats", "max_extracted")]
    assert origins == ["file", "argument", "default"]
    assert ResolvedConfig.from_yaml(config.to_yaml()) == config


@pytest.mark.parametrize("nothing", ["none", "None", "", None])
def test_a_bound_can_be_taken_away(nothing: str | None) -> None:
    assert resolve(TrainingRequest.parse({"gate": {"max_verbatim_tokens": nothing}})).gate.max_verbatim_tokens is None


def test_a_bound_that_was_taken_away_is_queued_as_such() -> None:
    chosen = chosen_settings(resolve(arguments={"gate.max_verbatim_tokens": "none", "steps": 3}))
    assert chosen == {"gate.max_verbatim_tokens": "none", "steps": 3}
    assert resolve(arguments=chosen).gate.max_verbatim_tokens is None


def test_canaries_are_queued_where_there_are_any() -> None:
    assert chosen_settings(resolve(arguments={"dataset.canaries": 2})) == {"dataset.canaries": 2}
    assert chosen_settings(resolve(arguments={"dataset.canaries": 0})) == {}, "as it is without them"


def bounds(tmp_path: Path, text: str) -> dict[str, object]:
    file = tmp_path / "gate.yaml"
    file.write_text(text)
    return GateSettings(training_gate_file=file).gate_bounds()


def test_an_operators_bounds_hold_where_a_training_says_nothing(tmp_path: Path) -> None:
    found = bounds(tmp_path, "max_general_loss: 0.1\nrequire_identified: true\nmin_yes_no_accuracy: 0.6\n")
    config = resolve(bounds=found)
    assert config.gate == GatePolicy(max_general_loss=0.1, require_identified=True, min_yes_no_accuracy=0.6)
    assert config.origins["gate.require_identified"] == "environment"
    assert GateSettings().gate_bounds() == {}


@pytest.mark.parametrize(
    ("floor", "key", "less", "more"),
    [
        ("max_general_loss: 0.1", "max_general_loss", 0.11, 0.09),
        ("max_general_loss: 0.1", "max_general_loss", "none", 0.1),
        ("min_gain_nats: 0.1", "min_gain_nats", 0.05, 0.2),
        ("min_yes_no_accuracy: 0.6", "min_yes_no_accuracy", "none", 0.6),
        ("require_measured: true", "require_measured", "false", "true"),
        ("max_extracted: 0", "max_extracted", 1, 0),
    ],
)
def test_a_training_may_ask_more_than_the_operator_and_never_less(
    tmp_path: Path, floor: str, key: str, less: object, more: object
) -> None:
    found = bounds(tmp_path, floor)
    resolve(arguments={f"gate.{key}": more}, bounds=found)
    with pytest.raises(ConfigInvalid, match="asks less than the operator's") as caught:
        resolve(arguments={f"gate.{key}": less}, bounds=found)
    assert caught.value.field == f"gate.{key}"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("max_general_los: 1", r"gate\.yaml: there is no bound max_general_los; did you mean max_general_loss"),
        ("zzz: 1", "known are min_gain_nats"),
        ("max_extracted: some", r"gate\.yaml: max_extracted"),
        ("- a", "`bound: value` lines"),
        ("a: [", "is not YAML"),
    ],
)
def test_a_file_of_bounds_that_cannot_be_used_names_the_line(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(ConfigInvalid, match=reason):
        bounds(tmp_path, text)
    with pytest.raises(ConfigInvalid, match="cannot be read"):
        GateSettings(training_gate_file=tmp_path / "nowhere.yaml").gate_bounds()
