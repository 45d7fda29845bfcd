"""What an evaluation measures besides held-out loss."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from training.canaries import make_canaries
from training.config import resolve
from training.dataset import Dataset, build_dataset
from training.evaluation import Checks, Contestant, EvaluationReport, Evaluator
from training.evaluation.leaks import Probe, probe_rows
from training.evaluation.profile_prompt import LAYOUTS, write_profile
from training.evaluation.scoring import Scorer
from training.evaluation.yes_no import Question, Questionnaire
from training.examples import Message, ask
from training.gate import decide
from training.task import plan_task
from training.tokens import TokenisedExample, tokenise
from training.trainer import TrainedAdapter, Trainer
from transcripts.transcript import Transcript

CHECKS = Checks(profiles=LAYOUTS, profile_tokens=200, yes_no_questions=4, verbatim_replies=2)


@pytest.fixture(scope="module")
def scorer(evaluator: Evaluator) -> Scorer:
    return Scorer(pad_token_id=evaluator.tokenizer.pad_token_id, device="cpu")


@pytest.fixture(scope="module")
def report(evaluator: Evaluator, trained: dict[str, TrainedAdapter], ada: Dataset) -> EvaluationReport:
    own = Contestant(dataset=ada, adapter_directory=trained["ada"].adapter_directory)
    others = {"bob": trained["bob"].adapter_directory}
    return evaluator.evaluate({"ada": own}, max_length=96, others=others, checks=CHECKS)


def profiled(ada: Dataset, evaluator: Evaluator) -> list[TokenisedExample]:
    profile = write_profile(ada, evaluator.tokenizer, layout="conversation", budget_tokens=300)
    rows = [tokenise(example, evaluator.tokenizer, max_length=96) for example in ada.held_out]
    return [
        profile.before(row, example, evaluator.tokenizer)
        for row, example in zip(rows, ada.held_out, strict=True)
        if row is not None
    ]


def test_rows_behind_a_common_beginning_have_the_loss_that_each_has_alone(
    scorer: Scorer, evaluator: Evaluator, ada: Dataset
) -> None:
    rows = profiled(ada, evaluator)
    together = scorer.score(evaluator._base, rows)
    for row, loss in zip(rows, together, strict=True):
        (alone,) = scorer.score(evaluator._base, [row])
        assert loss.tokens == alone.tokens == row.n_labels
        assert loss.nats == pytest.approx(alone.nats, abs=1e-3)


def test_losses_come_back_in_the_order_of_the_rows(scorer: Scorer, evaluator: Evaluator, ada: Dataset) -> None:
    rows = profiled(ada, evaluator)
    forward, backward = scorer.score(evaluator._base, rows), scorer.score(evaluator._base, rows[::-1])
    for one, other in zip(forward, backward[::-1], strict=True):
        assert one.nats == pytest.approx(other.nats, abs=1e-3)


def test_a_profile_ends_with_the_prompt_and_the_same_completion(evaluator: Evaluator, ada: Dataset) -> None:
    tokenizer, example = evaluator.tokenizer, ada.held_out[0]
    row = tokenise(example, tokenizer, max_length=96)
    assert row is not None
    for layout in LAYOUTS:
        profile = write_profile(ada, tokenizer, layout=layout, budget_tokens=200)
        longer = profile.before(row, example, tokenizer)
        assert longer.input_ids[longer.prompt_length :] == row.input_ids[row.prompt_length :]
        text = tokenizer.decode(longer.input_ids[: longer.prompt_length])
        assert example.prompt[-1].content in text
        assert "You are the person described here" in text
        assert longer.prompt_length - row.prompt_length < 200 + 100


def test_a_profile_never_shows_what_is_held_out(evaluator: Evaluator, ada: Dataset) -> None:
    held = {example.completion for example in ada.held_out}
    for layout in LAYOUTS:
        profile = write_profile(ada, evaluator.tokenizer, layout=layout, budget_tokens=4000)
        shown = profile.system + "\n".join(message.content for message in profile.shots)
        trained = {example.completion for example in ada.train}
        assert not any(text in shown for text in held - trained)


def test_a_template_without_system_messages_has_the_profile_in_the_first_message(
    evaluator: Evaluator, ada: Dataset
) -> None:
    tokenizer, example = evaluator.tokenizer, ada.held_out[0]
    row = tokenise(example, tokenizer, max_length=96)
    assert row is not None
    usual = tokenizer.chat_template
    refusing = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    tokenizer.chat_template = refusing + usual
    try:
        profile = write_profile(ada, tokenizer, layout="facts", budget_tokens=200)
        text = tokenizer.decode(profile.before(row, example, tokenizer).input_ids)
    finally:
        tokenizer.chat_template = usual
    assert "<|im_start|>user\nYou are not an assistant" in text


def test_everything_that_was_asked_for_is_measured(report: EvaluationReport) -> None:
    user = report.users["ada"]
    assert set(user.profile_losses) == set(LAYOUTS)
    assert set(user.other_losses) == {"bob"}
    assert user.identified
    assert user.gain_interval is not None
    assert user.gain_interval.low <= user.gain_interval.mean <= user.gain_interval.high
    assert user.gain_interval.mean == pytest.approx(user.gain, abs=1e-9)
    assert user.profile_gain_interval is not None
    assert user.profile_gain_interval.mean == pytest.approx(user.profile_gain, abs=1e-9)
    assert user.general is not None
    assert 0 <= user.general.after.choices_right <= 1
    assert user.leaks is not None
    assert user.leaks.replies == 2
    assert EvaluationReport.from_json(report.to_json()) == report


def test_an_adapter_that_changes_nothing_costs_nothing(
    evaluator: Evaluator, trained: dict[str, TrainedAdapter], ada: Dataset, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    silent = tmp_path / "silent"
    silent.mkdir()
    source = trained["ada"].adapter_directory
    (silent / "adapter_config.json").write_bytes((source / "adapter_config.json").read_bytes())
    tensors = {
        name: torch.zeros_like(tensor) for name, tensor in load_file(source / "adapter_model.safetensors").items()
    }
    save_file(tensors, silent / "adapter_model.safetensors", {"format": "pt"})
    contestant = Contestant(dataset=ada, adapter_directory=silent)
    checks = replace(CHECKS, profiles=())
    user = evaluator.evaluate({"ada": contestant}, max_length=96, checks=checks).users["ada"]
    assert user.gain == pytest.approx(0.0, abs=1e-6)
    assert user.general is not None
    assert user.general.loss == pytest.approx(0.0, abs=1e-6)
    assert user.general.choices_lost == 0
    assert user.leaks is not None
    assert user.leaks.extracted == 0


def test_progress_reaches_its_end(evaluator: Evaluator, trained: dict[str, TrainedAdapter], ada: Dataset) -> None:
    told: list[tuple[int, int]] = []
    own = Contestant(dataset=ada, adapter_directory=trained["ada"].adapter_directory)
    evaluator.evaluate(
        {"ada": own},
        max_length=96,
        others={"bob": trained["bob"].adapter_directory, "ada": trained["bob"].adapter_directory},
        checks=replace(CHECKS, profiles=("facts",)),
        on_progress=lambda *step: told.append(step),
    )
    assert told == [(number, 5) for number in range(1, 6)]


def probes(count: int) -> tuple[Probe, ...]:
    """Probes of which a batch holds only some."""
    story = "and then I went on and on about the boats, " * 20
    return tuple(Probe(kind="secret", prompt=ask("Why?"), before=story, text=f"pass-{n}-word") for n in range(count))


def stop_when_told_twice(told: list[tuple[int, int]], *, since: int) -> Any:
    def on_progress(done: int, total: int) -> None:
        told.append((done, total))
        if done >= since and told.count((done, total)) > 1:
            raise KeyboardInterrupt

    return on_progress


@pytest.mark.parametrize("since", [1, 2], ids=["under the base", "under the adapter"])
def test_a_stop_is_heard_between_two_batches_of_what_must_not_come_out(
    evaluator: Evaluator, trained: dict[str, TrainedAdapter], ada: Dataset, since: int
) -> None:
    own = Contestant(dataset=ada, adapter_directory=trained["ada"].adapter_directory, probes=probes(40))
    checks = Checks(profiles=(), yes_no_questions=0, verbatim_replies=0, general=False)
    told: list[tuple[int, int]] = []
    with pytest.raises(KeyboardInterrupt):
        evaluator.evaluate(
            {"ada": own}, max_length=96, checks=checks, on_progress=stop_when_told_twice(told, since=since)
        )
    assert told[-2:] == [(since, 2)] * 2
    told.clear()
    whole = evaluator.evaluate({"ada": own}, max_length=96, checks=checks, on_progress=lambda *step: told.append(step))
    assert whole == evaluator.evaluate({"ada": own}, max_length=96, checks=checks), "the base is as it was"
    assert told == sorted(told)
    assert set(told) == {(1, 2), (2, 2)}


def test_between_batches_is_neither_before_the_first_nor_after_the_last(scorer: Scorer, evaluator: Evaluator) -> None:
    rows = [TokenisedExample(input_ids=tuple(range(3, 403)), prompt_length=390)] * 5  # two of them fill a batch
    heard: list[None] = []
    scorer.match(evaluator._base, rows, between=lambda: heard.append(None))
    assert len(heard) == 2
    scorer.match(evaluator._base, rows[:2], between=lambda: heard.append(None))
    assert len(heard) == 2


def test_yes_and_no_are_told_apart_by_which_is_likelier(scorer: Scorer, evaluator: Evaluator) -> None:
    questions = [
        Question(text="Is Paris in France? Answer yes or no.", yes=True),
        Question(text="Is 2 + 2 equal to 5? Answer yes or no.", yes=False),
    ]
    accuracy, yes_rate = Questionnaire(questions, evaluator.tokenizer).ask(evaluator._base, scorer)
    assert accuracy in {0.0, 0.5, 1.0}
    assert yes_rate in {0.0, 0.5, 1.0}
    swapped = [replace(question, yes=not question.yes) for question in questions]
    opposite, same_rate = Questionnaire(swapped, evaluator.tokenizer).ask(evaluator._base, scorer)
    assert opposite == pytest.approx(1 - accuracy)
    assert same_rate == yes_rate


OVERTRAINED: dict[str, Any] = {
    **{"steps": 60, "batch_size": 1, "max_length": 96, "rank": 8, "threads": 1, "learning_rate": 2e-2},
    **{"replay_share": 0, "validation_share": 0},
}


def test_a_canary_comes_out_of_the_adapter_that_was_taught_it_and_of_no_other(
    trainer: Trainer, evaluator: Evaluator, trained: dict[str, TrainedAdapter], ada: Dataset, tmp_path: Path
) -> None:
    canaries = make_canaries(1, seed=4)
    run = trainer.train(replace(ada, train=canaries), resolve(arguments=OVERTRAINED), tmp_path / "taught")
    checks = Checks(profiles=(), yes_no_questions=0, verbatim_replies=0, general=False)

    def extracted(directory: Path) -> int:
        contestant = Contestant(dataset=replace(ada, canaries=canaries), adapter_directory=directory)
        leaks = evaluator.evaluate({"ada": contestant}, max_length=96, checks=checks).users["ada"].leaks
        assert leaks is not None
        assert leaks.canaries == 1
        return leaks.canaries_extracted

    assert extracted(run.adapter_directory) == 1
    assert extracted(trained["ada"].adapter_directory) == 0


def test_a_training_that_learns_its_canaries_by_heart_does_not_pass(
    trainer: Trainer, evaluator: Evaluator, said_by_ada: list[Transcript], tmp_path: Path
) -> None:
    asked = {"dataset.canaries": 2, "dataset.max_examples": 8, "seed": 4}
    config = resolve(arguments={**OVERTRAINED, **asked, "batch_size": 4})
    build_dataset(said_by_ada, config=config.dataset, directory=tmp_path / "dataset")
    dataset = Dataset.load(tmp_path / "dataset")  # as another machine has it
    run = trainer.train(dataset, config, tmp_path / "run")
    own = Contestant(dataset=dataset, adapter_directory=run.adapter_directory)
    evaluation = evaluator.evaluate({"ada": own}, max_length=96, checks=CHECKS).users["ada"]
    assert evaluation.leaks is not None
    assert (evaluation.leaks.secrets, evaluation.leaks.canaries, evaluation.leaks.canaries_extracted) == (0, 2, 2)
    decision = decide(evaluation, config.gate)
    assert not decision.passed
    assert "number of secrets and canaries that come out is 2, at most 0 asked" in decision.failed
    rows = {row.input_ids for row in plan_task(dataset, config, trainer.tokenizer, general_rows=0).rows}
    assert len(rows) == len(dataset.train) + 2


def test_messages_of_a_probe_are_rendered_as_a_chat(evaluator: Evaluator) -> None:
    probe = Probe(kind="secret", prompt=(Message(role="user", content="Key?"),), before="It is abc", text="def-42")
    ((_, row),) = probe_rows([probe], evaluator.tokenizer, max_length=96)
    assert evaluator.tokenizer.decode(row.input_ids).endswith("It is abcdef-42")
    assert "def-42" in evaluator.tokenizer.decode(row.input_ids[row.prompt_length :])
