from __future__ import annotations

import io

import pytest
from rich.console import Console

from lorry import output, pipeline
from training.evaluation import EvaluationReport, UserEvaluation


def report(count: int) -> EvaluationReport:
    users = [f"chitchat-{number:08x}" for number in range(count)]
    return EvaluationReport(
        users={
            user: UserEvaluation(
                base_loss=3.5,
                own_loss=2.25,
                other_losses={other: 3.0 + at / 8 for at, other in enumerate(users) if other != user},
                n_examples=12,
                n_tokens=345,
            )
            for user in users
        }
    )


@pytest.mark.parametrize("count", [1, 3, 20])
def test_the_tables_of_an_evaluation_fit_80_columns_and_break_no_name(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = io.StringIO()
    console = Console(file=text, width=80)
    monkeypatch.setattr(output, "err", console)
    monkeypatch.setattr(pipeline, "err", console)
    found = report(count)
    pipeline.show_evaluation(found)
    shown = text.getvalue()
    assert max(map(len, shown.splitlines())) <= 80
    for user in found.users:
        assert shown.count(user) >= (2 if count > 1 else 1)
    assert "2.250" in shown
