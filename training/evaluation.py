"""Does an adapter know its user? Held-out loss on the base as it is served, not on the 4-bit base it was trained on.

For each user, the held-out replies are scored by the plain base, by the user's own adapter and by everybody else's.
A loss is in nats per completion token, averaged over tokens. An adapter that only learnt the form of a chat beats
the base but not the other adapters; one that knows its user beats both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import torch
from peft import PeftModel

from training.dataset import Dataset
from training.errors import AdapterUnreadable, DatasetTooSmall
from training.loss import collate, label_losses
from training.qlora import load_dense, load_tokenizer
from training.tokens import TokenisedExample, tokenise

OnScore = Callable[[int, int], None]
_BATCH_TOKENS = 1024


@dataclass(frozen=True, kw_only=True)
class UserEvaluation:
    """One user's held-out loss under every model, in nats per completion token.

    `other_losses` maps the names of the other users of the comparison to the loss under their adapters; `n_tokens`
    counts the completion tokens of the `n_examples` held-out replies.
    """

    base_loss: float
    own_loss: float
    other_losses: dict[str, float]
    n_examples: int
    n_tokens: int

    @property
    def gain(self) -> float:
        """How many nats per token the adapter saves over the base; negative when it is worse."""
        return self.base_loss - self.own_loss

    @property
    def identified(self) -> bool | None:
        """Whether the user's own adapter predicts them better than every other's; None without others."""
        if not self.other_losses:
            return None
        return self.own_loss < min(self.other_losses.values())

    def to_json(self) -> dict[str, Any]:
        """Return the measured values and what follows from them."""
        return {**asdict(self), "gain": self.gain, "identified": self.identified}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Rebuild what `to_json` wrote."""
        return cls(**{key: value[key] for key in cls.__dataclass_fields__})


@dataclass(frozen=True, kw_only=True)
class EvaluationReport:
    """Everybody who was compared, by name. Laws: ``EvaluationReport.from_json(r.to_json()) == r``."""

    users: dict[str, UserEvaluation]

    @property
    def identification_accuracy(self) -> float | None:
        """The share of users whose own adapter predicts them best; None when nobody was compared with others."""
        decided = [user.identified for user in self.users.values() if user.identified is not None]
        return sum(decided) / len(decided) if decided else None

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, which `from_json` reads."""
        return {
            "users": {name: user.to_json() for name, user in sorted(self.users.items())},
            "identification_accuracy": self.identification_accuracy,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Rebuild what `to_json` wrote."""
        return cls(users={name: UserEvaluation.from_json(user) for name, user in value["users"].items()})


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """One user of a comparison: whose replies are scored, and the adapter directory that should know them."""

    dataset: Dataset
    adapter_directory: Path


class Evaluator:
    """The base as served in memory, and adapters put on it in turn."""

    def __init__(self, base_directory: Path, *, device: str | None = None) -> None:
        """Load the unquantised base: float32 on CPU, bfloat16 on CUDA."""
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.tokenizer = load_tokenizer(base_directory)
        self._base = load_dense(base_directory, device=self.device)

    def evaluate(
        self,
        contestants: Mapping[str, Contestant],
        *,
        max_length: int,
        against_others: bool = True,
        on_progress: OnScore | None = None,
    ) -> EvaluationReport:
        """Score every user's held-out replies under the base and the adapters.

        Args:
            contestants: by a name that the report uses; users are compared with one another.
            max_length: tokens of one example; longer prompts lose their oldest turns.
            against_others: False scores only base and own adapter, which grows with users rather than their square.
            on_progress: told (models scored, of) after each pass over one user's replies.

        Raises:
            AdapterUnreadable: an adapter directory cannot be loaded onto this base.
            DatasetTooSmall: a user has no held-out reply that fits into `max_length` tokens.
        """
        rows = {name: self._rows(name, each.dataset, max_length) for name, each in contestants.items()}
        pairs = sum(len(contestants) if against_others else 1 for _ in contestants) + len(contestants)
        progress = _Progress(pairs, on_progress)
        losses: dict[str, dict[str, float]] = {name: {} for name in contestants}
        base = {name: progress.count(self._mean_loss(self._base, rows[name])) for name in contestants}
        for adapter, contestant in contestants.items():
            with _Attached(self._base, contestant.adapter_directory) as model:
                for name in contestants if against_others else (adapter,):
                    losses[name][adapter] = progress.count(self._mean_loss(model, rows[name]))
        return EvaluationReport(
            users={
                name: UserEvaluation(
                    base_loss=base[name],
                    own_loss=losses[name].pop(name),
                    other_losses=losses[name],
                    n_examples=len(rows[name]),
                    n_tokens=sum(row.n_labels for row in rows[name]),
                )
                for name in contestants
            }
        )

    def _rows(self, name: str, dataset: Dataset, max_length: int) -> list[TokenisedExample]:
        tokenised = [tokenise(example, self.tokenizer, max_length=max_length) for example in dataset.held_out]
        rows = [row for row in tokenised if row is not None]
        if not rows:
            raise DatasetTooSmall(f"no held-out reply of {name} fits into {max_length} tokens", field="max_length")
        return rows

    def _mean_loss(self, model: Any, rows: Sequence[TokenisedExample]) -> float:
        """Average over all completion tokens, summed in float64 so that batching does not show."""
        total, count = 0.0, 0
        for batch in _batches(rows):
            tensors = collate(batch, pad_token_id=self.tokenizer.pad_token_id or 0)
            with torch.inference_mode():
                losses, _ = label_losses(model, {key: tensor.to(self.device) for key, tensor in tensors.items()})
            total += float(losses.double().sum())
            count += losses.numel()
        return total / count


class _Attached:
    """One adapter on the base inside the block; the plain base again after it."""

    def __init__(self, base: Any, adapter_directory: Path) -> None:
        self._base, self._directory = base, adapter_directory
        self._model: Any = None

    def __enter__(self) -> Any:
        try:
            self._model = PeftModel.from_pretrained(self._base, self._directory, local_files_only=True)
        except (OSError, ValueError, RuntimeError) as exc:
            reason = str(exc).splitlines()[0]
            raise AdapterUnreadable(
                f"{self._directory} cannot be put on this base model: {reason}", field=str(self._directory)
            ) from exc
        return self._model.eval().get_base_model()

    def __exit__(self, *_: object) -> None:
        self._model.unload()
        vars(self._base).pop("peft_config", None)


class _Progress:
    def __init__(self, total: int, on_progress: OnScore | None) -> None:
        self._done, self._total, self._on_progress = 0, total, on_progress

    def count(self, loss: float) -> float:
        self._done += 1
        if self._on_progress is not None:
            self._on_progress(self._done, self._total)
        return loss


def _batches(rows: Sequence[TokenisedExample]) -> list[list[TokenisedExample]]:
    """Rows of similar length together, at most about a thousand padded tokens a batch."""
    batches: list[list[TokenisedExample]] = []
    for row in sorted(rows, key=lambda row: len(row.input_ids)):
        if batches and (len(batches[-1]) + 1) * len(row.input_ids) <= _BATCH_TOKENS:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches
