"""Does an adapter know its user, what did it cost, and may it go live? See docs/evaluation.md."""

from __future__ import annotations

from training.evaluation.evaluator import ONLY_LOSSES, Evaluator
from training.evaluation.report import EvaluationReport, UserEvaluation
from training.evaluation.subject import Checks, Contestant

__all__ = ["ONLY_LOSSES", "Checks", "Contestant", "EvaluationReport", "Evaluator", "UserEvaluation"]
