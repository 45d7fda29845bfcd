"""One user while they are evaluated: what is asked once, and what every model made of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.dataset import Dataset
from training.errors import DatasetTooSmall
from training.evaluation.general import GeneralAbility
from training.evaluation.intervals import Estimate, estimate_ratio
from training.evaluation.leaks import Leaks, Probe, judge, probe_canaries, probe_rows, reply_rows
from training.evaluation.profile_prompt import Layout
from training.evaluation.report import UserEvaluation
from training.evaluation.scoring import RowLoss, mean_loss
from training.evaluation.yes_no import Questionnaire, YesNo, choose_questions
from training.examples import Example
from training.tokens import TokenisedExample, tokenise


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """One user of a comparison: whose replies are scored, the adapter that should know them, what it must not say.

    The dataset's canaries must not be said either, without being among `probes`.
    `start` is the adapter that its training began with, where it had one.
    """

    dataset: Dataset
    adapter_directory: Path
    probes: tuple[Probe, ...] = ()
    start: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Checks:
    """What is measured besides held-out loss under base and adapters, and how much of it.

    `profiles` are the layouts of the profile-in-prompt, none for not at all; `profile_tokens` is the budget of each.
    `yes_no_questions` and `verbatim_replies` bound how many are tried, 0 for none. `seed` chooses questions and
    resamples.
    """

    profiles: tuple[Layout, ...] = ("conversation",)
    profile_tokens: int = 768
    yes_no_questions: int = 24
    verbatim_replies: int = 24
    general: bool = True
    seed: int = 0


@dataclass(kw_only=True)
class Subject:
    """One user's rows, and the losses that pile up while models take turns."""

    dataset: Dataset
    examples: list[Example]
    rows: list[TokenisedExample]
    probes: list[Probe]
    probed_rows: list[TokenisedExample]
    questionnaire: Questionnaire | None
    base: list[RowLoss] = field(default_factory=list)
    profiles: dict[Layout, list[RowLoss]] = field(default_factory=dict)
    under: dict[str, list[RowLoss]] = field(default_factory=dict)
    under_start: list[RowLoss] = field(default_factory=list)
    base_answers: tuple[float, float] = (0.0, 0.0)
    base_matches: list[RowLoss] = field(default_factory=list)
    yes_no: YesNo | None = None
    leaks: Leaks | None = None
    general: GeneralAbility | None = None

    @classmethod
    def prepare(cls, name: str, contestant: Contestant, tokenizer: Any, *, max_length: int, checks: Checks) -> Subject:
        """Tokenise everything that is asked about one user.

        Raises:
            DatasetTooSmall: no held-out reply fits into `max_length` tokens.
        """
        dataset = contestant.dataset
        tokenised = [(each, tokenise(each, tokenizer, max_length=max_length)) for each in dataset.held_out]
        fitting = [(example, row) for example, row in tokenised if row is not None]
        if not fitting:
            raise DatasetTooSmall(f"no held-out reply of {name} fits into {max_length} tokens", field="max_length")
        questions = choose_questions(dataset.train, limit=checks.yes_no_questions, seed=checks.seed)
        tried = (*contestant.probes, *probe_canaries(dataset.canaries))
        probed = list(probe_rows(tried, tokenizer, max_length=max_length))
        replies = reply_rows(dataset.train, tokenizer, max_length=max_length, limit=checks.verbatim_replies)
        return cls(
            dataset=dataset,
            examples=[example for example, _ in fitting],
            rows=[row for _, row in fitting],
            probes=[probe for probe, _ in probed],
            probed_rows=[*(row for _, row in probed), *replies],
            questionnaire=Questionnaire(questions, tokenizer) if questions else None,
        )

    def judge(self, matches: Sequence[RowLoss]) -> Leaks:
        """Return what came out of the user's own adapter, given its matches on `probed_rows`."""
        tried = len(self.probes)
        return judge(
            self.probes,
            base=self.base_matches[:tried],
            adapter=matches[:tried],
            base_replies=self.base_matches[tried:],
            adapter_replies=matches[tried:],
        )

    def conclude(self, name: str, *, seed: int) -> UserEvaluation:
        """Return what was found about the user called `name`."""
        own = self.under[name]
        best = min(self.profiles.values(), key=mean_loss, default=None)
        return UserEvaluation(
            base_loss=mean_loss(self.base),
            own_loss=mean_loss(own),
            other_losses={other: mean_loss(losses) for other, losses in self.under.items() if other != name},
            n_examples=len(self.rows),
            n_tokens=sum(row.n_labels for row in self.rows),
            profile_losses={layout: mean_loss(losses) for layout, losses in self.profiles.items()},
            gain_interval=_gain(self.base, own, seed=seed),
            profile_gain_interval=_gain(best, own, seed=seed) if best else None,
            start_loss=mean_loss(self.under_start) if self.under_start else None,
            start_gain_interval=_gain(self.under_start, own, seed=seed) if self.under_start else None,
            yes_no=self.yes_no,
            general=self.general,
            leaks=self.leaks,
        )


def _gain(rival: Sequence[RowLoss], own: Sequence[RowLoss], *, seed: int) -> Estimate:
    """The nats per token saved over a rival on the same rows, with its interval over resampled rows."""
    saved = [theirs.nats - mine.nats for theirs, mine in zip(rival, own, strict=True)]
    return estimate_ratio(saved, [row.tokens for row in own], seed=seed)
