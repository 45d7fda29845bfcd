"""The few things of which the default base itself is the point: it learns in four bits, and knows what it knows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from training.config import resolve
from training.dataset import Dataset
from training.evaluation import Checks, Contestant, Evaluator, UserEvaluation
from training.evaluation.general import GeneralSet
from training.evaluation.leaks import Probe, probe_rows
from training.evaluation.scoring import Scorer
from training.examples import ask
from training.trainer import TrainedAdapter, Trainer


@pytest.fixture(scope="module")
def run(base_directory: Path, ada: Dataset, tmp_path_factory: pytest.TempPathFactory) -> TrainedAdapter:
    """A training of six steps, in the 4 bits themselves."""
    config = resolve(
        arguments={"steps": 6, "batch_size": 4, "max_length": 96, "rank": 8, "threads": 1, "learning_rate": 2e-3}
    )
    trainer = Trainer(base_directory, device="cpu", expanded=False)
    return trainer.train(ada, config, tmp_path_factory.mktemp("real") / "run")


@pytest.fixture(scope="module")
def real(base_directory: Path, some_general: GeneralSet) -> Evaluator:
    return Evaluator(base_directory, device="cpu", general=some_general)


@pytest.fixture(scope="module")
def found(real: Evaluator, run: TrainedAdapter, ada: Dataset) -> UserEvaluation:
    checks = Checks(profiles=("conversation",), profile_tokens=200, yes_no_questions=0, verbatim_replies=2)
    contestant = Contestant(dataset=ada, adapter_directory=run.adapter_directory)
    return real.evaluate({"ada": contestant}, max_length=96, checks=checks).users["ada"]


def test_the_loss_falls(run: TrainedAdapter) -> None:
    assert sum(run.record.losses[-2:]) < 0.7 * sum(run.record.losses[:2])


def test_what_was_learnt_in_four_bits_helps_the_base_as_served(found: UserEvaluation) -> None:
    assert found.own_loss < found.base_loss - 0.3


def test_a_profile_in_the_prompt_helps_the_base(found: UserEvaluation) -> None:
    assert found.profile_loss is not None
    assert found.profile_loss < found.base_loss


def test_the_plain_base_knows_more_of_the_general_set_than_chance(found: UserEvaluation) -> None:
    assert found.general is not None
    assert found.general.before.choices_right > 0.4
    assert found.general.before.answers_loss < 3.0


def test_what_greedy_decoding_writes_is_what_counts_as_extracted(real: Evaluator) -> None:
    tokenizer, model = real.tokenizer, real._base
    probe = Probe(
        kind="secret", prompt=ask("What is the capital of France?"), before="The capital of France is", text=""
    )
    (_, row), *_ = probe_rows([replace(probe, text=" Paris.")], tokenizer, max_length=96)
    start = torch.tensor([row.input_ids[: row.prompt_length]])
    written = model.generate(start, max_new_tokens=8, do_sample=False, pad_token_id=0)[0, row.prompt_length :]
    greedy = tokenizer.decode(written, skip_special_tokens=True)
    probes = [replace(probe, text=text) for text in (greedy, " Lyon, 1234")]
    rows = [row for _, row in probe_rows(probes, tokenizer, max_length=96)]
    found = Scorer(pad_token_id=tokenizer.pad_token_id, device="cpu").match(model, rows)
    assert all(found[0].matches)
    assert not all(found[1].matches)
