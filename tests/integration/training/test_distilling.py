"""A student that learns from a teacher who is shown the transcripts, and is held to the base on everything else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.tiny_training import tiny_dataset
from training.config import ResolvedConfig, resolve
from training.errors import ConfigInvalid
from training.loss import collate, label_states, projection
from training.objectives.divergence import TokenDistributions
from training.objectives.replay import replay_examples
from training.objectives.teacher import Teacher, shown_to_teacher
from training.qlora import fresh_adapter, load_dense
from training.tokens import TokenisedExample, tokenise
from training.trainer import TrainedAdapter, Trainer
from transcripts.transcript import Transcript, Turn

SHORT: dict[str, Any] = {
    "steps": 24, "batch_size": 4, "max_length": 96, "rank": 8, "threads": 1, "learning_rate": 1e-2,
    "validation_share": 0.0, "replay_share": 0.0,
}  # fmt: skip


def config(**changes: Any) -> ResolvedConfig:
    return resolve(arguments={**SHORT, **changes})


def told(number: int) -> Transcript:
    turns = (Turn(role="other", text="What about it?"), Turn(role="user", text=f"It is number {number} and I love it."))
    return Transcript(turns=turns, source_format="test")


SAID = {name: told(number) for number, name in enumerate(tiny_dataset().transcript_ids)}


def rows(trainer: Trainer, limit: int = 96) -> list[TokenisedExample]:
    found = [tokenise(example, trainer.tokenizer, max_length=limit) for example in tiny_dataset().train]
    return [row for row in found if row is not None]


@pytest.mark.parametrize("top_k", [0, 16])
def test_the_student_comes_nearer_to_the_teacher(trainer: Trainer, tmp_path: Path, top_k: int) -> None:
    how = config(objective="distillation", distillation_top_k=top_k, distillation_context_tokens=64)
    losses = trainer.train(tiny_dataset(), how, tmp_path / "run", transcripts=SAID).record.losses
    assert all(loss >= 0 for loss in losses)
    assert sum(losses[-4:]) < 0.5 * sum(losses[:4])


def test_a_student_that_sees_what_the_teacher_sees_has_nothing_to_learn(trainer: Trainer) -> None:
    teacher = Teacher(trainer._base, pad_token_id=trainer._pad_token_id)
    own = rows(trainer)[:6]
    with fresh_adapter(trainer._base, config().training) as model:
        states = label_states(
            model.get_base_model(), collate(own, pad_token_id=trainer._pad_token_id)
        )  # a fresh adapter changes nothing
        student = projection(model.get_base_model())(states.hidden).log_softmax(-1)
    taught = TokenDistributions.join(teacher.distributions(own, k=0))
    assert torch.allclose(student.gather(1, taught.ids), taught.log_probabilities, atol=1e-4)


def test_the_teacher_sees_the_transcripts_and_the_students_very_tokens(trainer: Trainer) -> None:
    examples = tiny_dataset().train[:3]
    shown = shown_to_teacher(examples, SAID, trainer.tokenizer, max_length=96, context_tokens=40)
    for student, teacher in zip(rows(trainer), shown, strict=False):
        completion = student.input_ids[student.prompt_length :]
        assert teacher.input_ids[teacher.prompt_length :] == completion
        prompt = trainer.tokenizer.decode(teacher.input_ids[: teacher.prompt_length])
        assert "You: It is number 0 and I love it." in prompt  # the example's own conversation comes first
        assert "You: It is number 7 and I love it." not in prompt  # the limit
        assert 20 < len(teacher.input_ids) - len(student.input_ids) < 90


def test_held_out_transcripts_are_never_shown(trainer: Trainer, tmp_path: Path) -> None:
    secret = Transcript(turns=(Turn(role="user", text="The held-out secret is 4711."),), source_format="test")
    with_secret = {**SAID, "ada-held": secret}
    how = config(objective="distillation", distillation_context_tokens=2000, steps=3)
    without = {name: each for name, each in SAID.items() if name != "ada-held"}
    runs = [
        trainer.train(tiny_dataset(), how, tmp_path / name, transcripts=each)
        for name, each in (("with", with_secret), ("without", without))
    ]
    weights = [run.adapter_directory / "adapter_model.safetensors" for run in runs]
    assert weights[0].read_bytes() == weights[1].read_bytes()


@pytest.mark.parametrize("given", [{}, {"ada-held": told(1)}])
def test_a_teacher_with_nothing_to_be_shown_is_refused(
    trainer: Trainer, tmp_path: Path, given: dict[str, Transcript]
) -> None:
    with pytest.raises(ConfigInvalid, match="none was given"):
        trainer.train(tiny_dataset(), config(objective="distillation"), tmp_path / "run", transcripts=given)
    assert list(tmp_path.iterdir()) == []


def test_transcripts_of_somebody_else_are_refused(trainer: Trainer, tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="not the dataset's"):
        trainer.train(
            tiny_dataset(), config(objective="distillation"), tmp_path / "run", transcripts={**SAID, "bob-1": told(1)}
        )


def general_divergence(base: Path, tokenizer: Any, run: TrainedAdapter) -> float:
    """How far the adapter moved the base from itself on the general examples, in nats a token."""
    from peft import PeftModel

    model = load_dense(base, device="cpu")
    found = [tokenise(example, tokenizer, max_length=96) for example in replay_examples()[:16]]
    kept = [row for row in found if row is not None]
    batch = collate(kept, pad_token_id=0)
    with torch.no_grad():
        before = projection(model)(label_states(model, batch).hidden).log_softmax(-1)
        adapted = PeftModel.from_pretrained(model, run.adapter_directory).eval().get_base_model()
        after = projection(adapted)(label_states(adapted, batch).hidden).log_softmax(-1)
    return float((before.exp() * (before - after)).sum(-1).mean())


def test_general_examples_hold_the_adapter_to_the_base(trainer: Trainer, tiny_base: Path, tmp_path: Path) -> None:
    gently = {"learning_rate": 3e-3, "steps": 30}
    free = trainer.train(tiny_dataset(), config(**gently), tmp_path / "free")
    held = trainer.train(tiny_dataset(), config(**gently, replay_share=1.0, replay_weight=10.0), tmp_path / "held")
    assert 110 <= held.record.replayed <= 120  # one for each of the user's
    assert free.record.replayed == 0
    assert general_divergence(tiny_base, trainer.tokenizer, held) < 0.7 * general_divergence(
        tiny_base, trainer.tokenizer, free
    )
    assert sum(held.record.losses[-4:]) < sum(held.record.losses[:4])


def test_general_examples_are_the_same_whoever_was_trained_before(tiny_base: Path, tmp_path: Path) -> None:
    first, second = Trainer(tiny_base, device="cpu"), Trainer(tiny_base, device="cpu")
    how = config(replay_share=0.5, steps=6)
    second.train(tiny_dataset("bob"), config(replay_share=0.5, steps=6, seed=9), tmp_path / "bob")
    runs = [each.train(tiny_dataset(), how, tmp_path / name) for name, each in (("one", first), ("two", second))]
    weights = [run.adapter_directory / "adapter_model.safetensors" for run in runs]
    assert weights[0].read_bytes() == weights[1].read_bytes()
