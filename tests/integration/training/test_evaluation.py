from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from training.dataset import Dataset
from training.errors import AdapterUnreadable, DatasetTooSmall
from training.evaluation import Contestant, EvaluationReport, Evaluator
from training.tokens import tokenise
from training.trainer import TrainedAdapter


def contestants(trained: dict[str, TrainedAdapter], ada: Dataset, bob: Dataset) -> dict[str, Contestant]:
    return {
        name: Contestant(dataset=dataset, adapter_directory=trained[name].adapter_directory)
        for name, dataset in (("ada", ada), ("bob", bob))
    }


@pytest.fixture(scope="module")
def report(evaluator: Evaluator, trained: dict[str, TrainedAdapter], ada: Dataset, bob: Dataset) -> EvaluationReport:
    return evaluator.evaluate(contestants(trained, ada, bob), max_length=96)


def test_each_adapter_predicts_its_own_user_better_than_base_and_others(report: EvaluationReport) -> None:
    for user in report.users.values():
        assert user.own_loss < user.base_loss
        assert user.identified
    assert report.identification_accuracy == 1.0


def test_the_losses_are_those_of_plain_peft_on_the_unquantised_base(
    report: EvaluationReport,
    trained: dict[str, TrainedAdapter],
    ada: Dataset,
    tiny_base: Path,
    evaluator: Evaluator,
) -> None:
    base = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32).eval()
    model = PeftModel.from_pretrained(base, trained["ada"].adapter_directory).eval()
    total = count = 0.0
    for example in ada.held_out:
        row = tokenise(example, evaluator.tokenizer, max_length=96)
        assert row is not None
        labels = torch.tensor([row.labels])
        with torch.no_grad():
            loss = model(input_ids=torch.tensor([row.input_ids]), labels=labels).loss
        total += float(loss) * row.n_labels
        count += row.n_labels
    assert report.users["ada"].n_tokens == count
    assert report.users["ada"].own_loss == pytest.approx(total / count, abs=1e-4)


def test_evaluating_again_gives_the_same_numbers_and_the_progress(
    report: EvaluationReport, evaluator: Evaluator, trained: dict[str, TrainedAdapter], ada: Dataset, bob: Dataset
) -> None:
    told: list[tuple[int, int]] = []
    again = evaluator.evaluate(
        contestants(trained, ada, bob), max_length=96, on_progress=lambda *step: told.append(step)
    )
    assert again == report
    assert told == [(number, 6) for number in range(1, 7)]


def test_without_others_only_base_and_own_are_scored(
    report: EvaluationReport, evaluator: Evaluator, trained: dict[str, TrainedAdapter], ada: Dataset, bob: Dataset
) -> None:
    alone = evaluator.evaluate(contestants(trained, ada, bob), max_length=96, against_others=False)
    assert alone.users["ada"].own_loss == report.users["ada"].own_loss
    assert alone.users["ada"].other_losses == {}
    assert alone.identification_accuracy is None


def test_a_directory_that_is_no_adapter_is_refused_and_the_base_stays(
    report: EvaluationReport, evaluator: Evaluator, trained: dict[str, TrainedAdapter], ada: Dataset, bob: Dataset,
    tmp_path: Path,
) -> None:  # fmt: skip
    broken = {"ada": Contestant(dataset=ada, adapter_directory=tmp_path)}
    with pytest.raises(AdapterUnreadable, match="cannot be put on this base"):
        evaluator.evaluate(broken, max_length=96)
    assert evaluator.evaluate(contestants(trained, ada, bob), max_length=96) == report


@pytest.mark.parametrize("damage", ["no files", "no configuration", "cut weights", "other sizes", "unknown layers"])
def test_a_rival_that_cannot_be_read_is_left_out_and_counted(
    report: EvaluationReport, evaluator: Evaluator, trained: dict[str, TrainedAdapter], ada: Dataset, bob: Dataset,
    tmp_path: Path, damage: str,
) -> None:  # fmt: skip
    rival = tmp_path / "rival"
    if damage != "no files":
        shutil.copytree(trained["bob"].adapter_directory, rival)
        break_adapter(rival, damage)
    one = {"ada": Contestant(dataset=ada, adapter_directory=trained["ada"].adapter_directory)}
    others = {"broken": rival, "bob": trained["bob"].adapter_directory}
    found = evaluator.evaluate(one, max_length=96, others=others).users["ada"]
    assert (set(found.other_losses), found.rivals_left_out) == ({"bob"}, 1)
    assert found.other_losses["bob"] == report.users["ada"].other_losses["bob"]
    assert evaluator.evaluate(contestants(trained, ada, bob), max_length=96) == report, "the base is as it was"


def break_adapter(directory: Path, damage: str) -> None:
    weights, config = directory / "adapter_model.safetensors", directory / "adapter_config.json"
    said = json.loads(config.read_text())
    match damage:
        case "no configuration":
            config.write_text("{")
        case "cut weights":
            weights.write_bytes(weights.read_bytes()[:100])
        case "other sizes":
            config.write_text(json.dumps({**said, "r": said["r"] * 2}))
        case "unknown layers":
            config.write_text(json.dumps({**said, "target_modules": ["no_such_layer"]}))


def test_replies_that_do_not_fit_are_refused(
    evaluator: Evaluator, trained: dict[str, TrainedAdapter], ada: Dataset
) -> None:
    one = {"ada": Contestant(dataset=ada, adapter_directory=trained["ada"].adapter_directory)}
    with pytest.raises(DatasetTooSmall, match="32 tokens"):
        evaluator.evaluate(one, max_length=32)
