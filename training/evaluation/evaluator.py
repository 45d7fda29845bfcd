"""Does an adapter know its user, and what did it cost? Measured on the base as it is served, not on the 4-bit one.

For each user, the held-out replies are scored by the plain base, by the base with a profile in its prompt, by the
user's own adapter, by everybody else's, and by the shared adapter that the training began with. A loss is in nats per
completion token, averaged over tokens. An adapter that only learnt the form of a chat beats the base but not the other
adapters; one that knows its user beats both.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError

from training.errors import AdapterUnreadable
from training.evaluation.general import GeneralAbility, GeneralScore, GeneralSet, GeneralTest
from training.evaluation.profile_prompt import write_profile
from training.evaluation.report import EvaluationReport
from training.evaluation.scoring import Scorer
from training.evaluation.subject import Checks, Contestant, Subject
from training.evaluation.yes_no import YesNo
from training.failures import is_memory
from training.qlora import load_dense, load_tokenizer

OnScore = Callable[[int, int], None]
T = TypeVar("T")
_UNREADABLE = (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, SafetensorError)
_log = logging.getLogger(__name__)
ONLY_LOSSES = Checks(profiles=(), yes_no_questions=0, verbatim_replies=0, general=False)


class Evaluator:
    """The base as served in memory, and adapters put on it in turn."""

    def __init__(self, base_directory: Path, *, device: str | None = None, general: GeneralSet | None = None) -> None:
        """Load the unquantised base: float32 on CPU, bfloat16 on CUDA; `general` replaces Lorry's own general set."""
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.tokenizer = load_tokenizer(base_directory)
        self._base = load_dense(base_directory, device=self.device)
        self._scorer = Scorer(pad_token_id=self.tokenizer.pad_token_id or 0, device=self.device)
        self._general_test = GeneralTest(self.tokenizer, content=general)
        self._general_before: GeneralScore | None = None

    def evaluate(
        self,
        contestants: Mapping[str, Contestant],
        *,
        max_length: int,
        against_others: bool = True,
        others: Mapping[str, Path] | None = None,
        checks: Checks = ONLY_LOSSES,
        on_progress: OnScore | None = None,
    ) -> EvaluationReport:
        """Score every user's held-out replies under the base and the adapters, and check what the adapters cost.

        Args:
            contestants: by a name that the report uses; users are compared with one another.
            max_length: tokens of one example; longer prompts lose their oldest turns.
            against_others: False scores only base and own adapter, which grows with users rather than their square.
            others: further adapter directories by name, whose own users are not evaluated; every contestant is
                compared with them. One that cannot be read is left out, and the report counts it.
            checks: what else is measured.
            on_progress: told (models scored, of) after each pass over one user's replies, and again, with the same
                numbers, between batches of what must not come out. What it raises ends the evaluation.

        Raises:
            AdapterUnreadable: a contestant's adapter, or what its training began with, cannot be loaded onto this base.
            DatasetTooSmall: a user has no held-out reply that fits into `max_length` tokens.
        """
        subjects = {
            name: Subject.prepare(name, each, self.tokenizer, max_length=max_length, checks=checks)
            for name, each in contestants.items()
        }
        adapters = {name: each.adapter_directory for name, each in contestants.items()}
        strangers = {name: path for name, path in (others or {}).items() if name not in adapters}
        starts = sum(each.start is not None for each in contestants.values())
        progress = _Progress(starts + _passes(len(contestants), len(strangers), against_others, checks), on_progress)
        if checks.general and self._general_before is None:
            self._general_before = self._general_test.score(self._base, self._scorer)
        for subject in subjects.values():
            self._score_base(subject, checks, progress)
        for start in dict.fromkeys(each.start for each in contestants.values() if each.start is not None):
            with _Attached(self._base, start) as model:
                for name, subject in subjects.items():
                    if contestants[name].start == start:
                        subject.under_start = progress.count(self._scorer.score(model, subject.rows))
        left_out = 0
        for name, directory in {**adapters, **strangers}.items():
            try:
                with _Attached(self._base, directory) as model:
                    for other, subject in subjects.items():
                        if other == name or name in strangers or against_others:
                            subject.under[name] = progress.count(self._scorer.score(model, subject.rows))
                    if name in subjects:
                        self._check(model, subjects[name], checks, progress)
            except AdapterUnreadable:
                if name in subjects:
                    raise
                left_out += 1  # another user's adapter is no fault of these
                _log.warning("a rival's adapter cannot be read and is left out")
        return EvaluationReport(
            users={
                name: replace(subject.conclude(name, seed=checks.seed), rivals_left_out=left_out)
                for name, subject in subjects.items()
            },
            seed=checks.seed,
        )

    def _score_base(self, subject: Subject, checks: Checks, progress: _Progress) -> None:
        """Score the plain base, and the base with each profile in its prompt."""
        subject.base = progress.count(self._scorer.score(self._base, subject.rows))
        for layout in checks.profiles:
            profile = write_profile(subject.dataset, self.tokenizer, layout=layout, budget_tokens=checks.profile_tokens)
            rows = [
                profile.before(row, example, self.tokenizer)
                for row, example in zip(subject.rows, subject.examples, strict=True)
            ]
            subject.profiles[layout] = progress.count(self._scorer.score(self._base, rows))
        if subject.questionnaire:
            subject.base_answers = subject.questionnaire.ask(self._base, self._scorer)
        subject.base_matches = self._scorer.match(self._base, subject.probed_rows, between=progress.repeat)

    def _check(self, model: Any, subject: Subject, checks: Checks, progress: _Progress) -> None:
        """Measure what the user's own adapter cost."""
        if subject.questionnaire:
            accuracy, yes_rate = subject.questionnaire.ask(model, self._scorer)
            base_accuracy, base_yes_rate = subject.base_answers
            subject.yes_no = YesNo(
                questions=subject.questionnaire.size,
                accuracy=accuracy,
                yes_rate=yes_rate,
                base_accuracy=base_accuracy,
                base_yes_rate=base_yes_rate,
            )
        if subject.probed_rows:
            matches = self._scorer.match(model, subject.probed_rows, between=progress.repeat)
            subject.leaks = subject.judge(matches)
        if checks.general:
            subject.general = progress.count(self._general(model))

    def _general(self, model: Any) -> GeneralAbility:
        """Score the fixed set under an adapter; what the plain base makes of it was measured before any was on it."""
        if self._general_before is None:
            raise RuntimeError("the plain base is scored before any adapter is put on it")
        after = self._general_test.score(model, self._scorer)
        return GeneralAbility(before=self._general_before, after=after, set_digest=self._general_test.digest)


class _Attached:
    """One adapter on the base inside the block; the plain base again after it, also when it could not be put on."""

    def __init__(self, base: Any, adapter_directory: Path) -> None:
        self._base, self._directory = base, adapter_directory
        self._model: Any = None

    def __enter__(self) -> Any:
        try:
            self._model = PeftModel.from_pretrained(self._base, self._directory, local_files_only=True)
        except _UNREADABLE as exc:
            if is_memory(exc):
                raise
            _take_off(self._base)
            reason = (str(exc).splitlines() or [type(exc).__name__])[0]
            raise AdapterUnreadable(
                f"{self._directory} cannot be put on this base model: {reason}", field=str(self._directory)
            ) from exc
        return self._model.eval().get_base_model()

    def __exit__(self, *_: object) -> None:
        self._model.unload()
        vars(self._base).pop("peft_config", None)


def _take_off(base: Any) -> None:
    """Put back every layer that an adapter was put around before it turned out to be unreadable."""
    for name, module in list(base.named_modules()):
        if isinstance(module, BaseTunerLayer):
            place, _, last = name.rpartition(".")
            setattr(base.get_submodule(place), last, module.get_base_layer())
    vars(base).pop("peft_config", None)


class _Progress:
    def __init__(self, total: int, on_progress: OnScore | None) -> None:
        self._done, self._total, self._on_progress = 0, total, on_progress

    def count(self, result: T) -> T:
        self._done += 1
        self.repeat()
        return result

    def repeat(self) -> None:
        """Say again how far the evaluation is, so that whoever listens can end it here."""
        if self._on_progress is not None:
            self._on_progress(self._done, self._total)


def _passes(users: int, strangers: int, against_others: bool, checks: Checks) -> int:
    """How often `_Progress.count` will be called."""
    adapters = users if against_others else 1
    return users * (1 + len(checks.profiles) + adapters + strangers + checks.general)
