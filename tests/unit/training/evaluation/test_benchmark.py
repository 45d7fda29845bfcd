from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.training_quality import PANELS, PEOPLE, Study, choose, describe, measures
from training.config import resolve
from training.evaluation import EvaluationReport, UserEvaluation
from training.evaluation.general import GeneralAbility, GeneralScore


def user(own: float, *, general: float = 2.0, **changes: Any) -> UserEvaluation:
    before = GeneralScore(answers_loss=2.0, passages_loss=2.0, loss=2.0, choices_right=0.75)
    after = GeneralScore(answers_loss=2.0, passages_loss=2.0, loss=general, choices_right=0.75)
    given: dict[str, Any] = {
        "base_loss": 3.0,
        "other_losses": {"b": 2.75},
        "n_examples": 9,
        "n_tokens": 90,
        "profile_losses": {"facts": 2.75, "conversation": 2.5},
        "general": GeneralAbility(before=before, after=after, set_digest="abc"),
    }
    return UserEvaluation(own_loss=own, **{**given, **changes})


def met(*users: UserEvaluation) -> dict[str, bool | None]:
    report = EvaluationReport(users={f"user-{number}": each for number, each in enumerate(users)})
    return {measure.measure.partition(",")[0]: measure.met for measure in measures(report)}


def test_panels_share_nobody_and_do_not_change() -> None:
    test, dev, fresh = (choose(panel, count=PEOPLE) for panel in PANELS)
    assert len({*test, *dev, *fresh}) == 3 * PEOPLE
    assert choose("test", count=3) == test[:3]
    assert choose("test", count=99) == test


def test_the_targets_are_those_of_the_benchmark() -> None:
    good, bad = met(user(2.25)), met(user(2.75, general=2.05))
    assert good["identification accuracy"] is True
    assert good["mean gain over the base with the best profile in its prompt"] is True
    assert good["rise of the loss on the general set"] is True
    assert bad["identification accuracy"] is False
    assert bad["mean gain over the base with the best profile in its prompt"] is False
    assert bad["rise of the loss on the general set"] is False


def test_what_was_not_measured_is_no_figure() -> None:
    found = met(user(2.25, other_losses={}, profile_losses={}, general=2.0))
    assert "identification accuracy" not in found
    assert "mean gain over the base with the best profile in its prompt" not in found


def test_a_person_is_one_line() -> None:
    line = describe("abc", user(2.25))
    assert line.startswith("abc: base 3.000 own 2.250 best other 2.750")
    assert "\n" not in line


def test_runs_of_other_settings_have_other_places(tmp_path: Path) -> None:
    studies = [
        Study(panel="dev", count=1, config=resolve(arguments={"seed": seed}), say=lambda _: None, work=tmp_path)
        for seed in (0, 1)
    ]
    for study in studies:
        study._identity = "weights"
    one, other = (study._folder("runs", "sender", study.config.training.model_dump(mode="json")) for study in studies)
    assert one != other
    assert one.parent == other.parent == tmp_path / "runs"
