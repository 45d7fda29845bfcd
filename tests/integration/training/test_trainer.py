from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from registry.client import draft_from_directory
from registry.manifest import Owner
from training.config import ResolvedConfig, resolve
from training.dataset import Dataset
from training.errors import AdapterUnreadable, DatasetTooSmall, LossNotFinite, TrainingFailed
from training.trainer import TrainedAdapter, Trainer, TrainingProgress


def state_of(trainer: Trainer) -> tuple[dict[str, bytes], list[str], torch.Tensor, set[str]]:
    """The base's weights, its modules, its answer to a fixed input, and what hangs on the object."""
    base = trainer._base
    weights = {name: tensor.detach().contiguous().view(torch.uint8).numpy().tobytes()
               for name, tensor in base.state_dict().items() if tensor.dim()}  # fmt: skip
    modules = [f"{name}:{type(module).__name__}" for name, module in base.named_modules()]
    with torch.no_grad():
        answer = base(input_ids=torch.arange(10, 30)[None]).logits
    return weights, modules, answer, set(vars(base))


def test_the_base_is_exactly_what_it_was_after_each_training(
    trainer: Trainer, ada: Dataset, brief: ResolvedConfig, tmp_path: Path
) -> None:
    before = state_of(trainer)
    trainer.train(ada, brief, tmp_path / "run")
    after = state_of(trainer)
    assert before[0] == after[0]
    assert before[1] == after[1]
    assert torch.equal(before[2], after[2])
    assert before[3] == after[3]
    assert not [name for name, parameter in trainer._base.named_parameters() if parameter.requires_grad]


def test_a_cancelled_training_leaves_nothing_and_the_base_as_it_was(
    trainer: Trainer, ada: Dataset, brief: ResolvedConfig, tmp_path: Path
) -> None:
    class Cancelled(Exception):
        pass

    def cancel(progress: TrainingProgress) -> None:
        if progress.step == 2:
            raise Cancelled

    before = state_of(trainer)
    with pytest.raises(Cancelled):
        trainer.train(ada, brief, tmp_path / "runs" / "run", on_progress=cancel)
    assert list((tmp_path / "runs").iterdir()) == []
    after = state_of(trainer)
    assert before[:2] == after[:2]
    assert torch.equal(before[2], after[2])


def test_progress_is_told_after_each_step_with_the_recorded_loss(
    trainer: Trainer, ada: Dataset, brief: ResolvedConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[TrainingProgress] = []
    seconds = itertools.count(1.0)
    clock = SimpleNamespace(monotonic=lambda: next(seconds))  # steps of one length, whatever else this machine does
    monkeypatch.setattr("training.loop.time", clock)
    run = trainer.train(ada, brief, tmp_path / "run", on_progress=told.append)
    assert [(each.step, each.of) for each in told] == [(1, 3), (2, 3), (3, 3)]
    assert tuple(each.loss for each in told) == run.record.losses
    assert told[0].eta_seconds > told[1].eta_seconds > told[2].eta_seconds == 0
    assert 0 < told[0].seconds < told[1].seconds < told[2].seconds == run.record.seconds
    assert all(0 < loss < 20 for loss in run.record.losses)


def test_a_run_is_two_adapter_files_its_configuration_and_its_record(
    trained: dict[str, TrainedAdapter], ada: Dataset
) -> None:
    run = trained["ada"]
    assert sorted(path.name for path in run.directory.iterdir()) == ["adapter", "config.resolved.yaml", "training.json"]
    assert TrainedAdapter.load(run.directory) == run
    assert run.record.dataset_digest == ada.digest
    assert run.record.examples == len(ada.train)
    tensors = load_file(run.adapter_directory / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    layers = {name.split(".")[-3] for name in tensors}
    assert layers == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert any(bool(tensor.any()) for name, tensor in tensors.items() if "lora_B" in name)


def test_the_registry_accepts_what_was_trained(trained: dict[str, TrainedAdapter]) -> None:
    run = trained["ada"]
    draft = draft_from_directory(run.adapter_directory, owner=Owner(tenant="default", user="ada"), base=run.base)
    assert draft.lora.rank == 8
    written = {path.name: path.stat().st_size for path in run.adapter_directory.iterdir()}
    assert {file.path: file.size_bytes for file in draft.files} == written


def test_the_loss_falls(trained: dict[str, TrainedAdapter]) -> None:
    for run in trained.values():
        assert sum(run.record.losses[-3:]) < 0.7 * sum(run.record.losses[:3])


def test_a_finished_run_is_never_overwritten(
    trainer: Trainer, ada: Dataset, brief: ResolvedConfig, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(TrainingFailed, match="exists"):
        trainer.train(ada, brief, tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []


def test_a_dataset_without_an_example_that_fits_is_refused(trainer: Trainer, ada: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DatasetTooSmall, match="fits into 32 tokens"):
        trainer.train(ada, resolve(arguments={"max_length": 32}), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_diverging_training_ends_with_its_step(
    trainer: Trainer, ada: Dataset, brief: ResolvedConfig, tmp_path: Path
) -> None:
    broken = trainer._base.get_output_embeddings().weight
    kept = broken.detach().clone()
    try:
        broken.data.fill_(float("nan"))
        with pytest.raises(LossNotFinite, match="at step 1") as caught:
            trainer.train(ada, brief, tmp_path / "run")
    finally:
        broken.data.copy_(kept)
    assert caught.value.field == "learning_rate"
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AdapterUnreadable, match="not a finished training"):
        TrainedAdapter.load(tmp_path)


def test_recomputing_activations_trains_alike_and_leaves_the_base_as_it_was(
    trainer: Trainer, ada: Dataset, brief: ResolvedConfig, tmp_path: Path
) -> None:
    before = state_of(trainer)
    saving = brief.model_copy(update={"training": brief.training.model_copy(update={"gradient_checkpointing": True})})
    plain, saved = trainer.train(ada, brief, tmp_path / "plain"), trainer.train(ada, saving, tmp_path / "saved")
    assert saved.record.losses == pytest.approx(plain.record.losses, abs=1e-4)
    after = state_of(trainer)
    assert before[:2] == after[:2]
    assert torch.equal(before[2], after[2])
    assert before[3] == after[3]
    assert not trainer._base.is_gradient_checkpointing
