"""General ability before and after: a fixed set of answers, passages and choices that are about nobody.

`general.yaml` is the set. The loss of an adapter is how much its mean loss on answers and passages rises over the
plain base, as a share: 0.02 is two per cent. Choices are what a person would call knowledge: a
question with four options.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field

from kit.canonical import sha256_json
from training.evaluation.scoring import RowLoss, Scorer, mean_loss
from training.tokens import TokenisedExample

_PASSAGE_PROMPT_TOKENS = 8


class Answer(BaseModel):
    """A question and its right answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ask: str
    answer: str


class Choice(BaseModel):
    """A question and its options, the right one first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ask: str
    options: tuple[str, ...] = Field(min_length=2)


class GeneralSet(BaseModel):
    """Everything in ``general.yaml``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = Field(ge=1)
    answers: tuple[Answer, ...]
    passages: tuple[str, ...]
    choices: tuple[Choice, ...]

    @property
    def digest(self) -> str:
        """Of the content; reports with different digests cannot be compared."""
        return sha256_json(self.model_dump(mode="json"))[:16]


@dataclass(frozen=True, kw_only=True)
class GeneralScore:
    """What one model makes of the set: nats per token on answers and on passages, and the share of right choices."""

    answers_loss: float
    passages_loss: float
    loss: float
    choices_right: float

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Rebuild what ``asdict`` wrote."""
        return cls(**value)


@dataclass(frozen=True, kw_only=True)
class GeneralAbility:
    """The set's score before and after; `set_digest` says which set."""

    before: GeneralScore
    after: GeneralScore
    set_digest: str

    @property
    def loss(self) -> float:
        """By which share the mean loss rose; negative when it fell."""
        return (self.after.loss - self.before.loss) / self.before.loss

    @property
    def choices_lost(self) -> float:
        """By how much the share of right choices fell; negative when it rose."""
        return self.before.choices_right - self.after.choices_right

    def to_json(self) -> dict[str, Any]:
        """Return the measured values and what follows from them."""
        return {**asdict(self), "loss": self.loss, "choices_lost": self.choices_lost}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Rebuild what `to_json` wrote."""
        return cls(
            before=GeneralScore.from_json(value["before"]),
            after=GeneralScore.from_json(value["after"]),
            set_digest=value["set_digest"],
        )


@cache
def load_general() -> GeneralSet:
    """Return the set that this version of Lorry measures with."""
    text = files("training.evaluation").joinpath("general.yaml").read_text(encoding="utf-8")
    return GeneralSet.model_validate(yaml.safe_load(text))


class GeneralTest:
    """The set, tokenised once for a base."""

    def __init__(self, tokenizer: Any, *, content: GeneralSet | None = None) -> None:
        self._set = content or load_general()
        self._answers = [_chat(each.ask, each.answer, tokenizer) for each in self._set.answers]
        self._passages = [_passage(text, tokenizer) for text in self._set.passages]
        self._options = [[_chat(each.ask, option, tokenizer) for option in each.options] for each in self._set.choices]

    @property
    def digest(self) -> str:
        """Of the set."""
        return self._set.digest

    def score(self, model: Any, scorer: Scorer) -> GeneralScore:
        """Return what `model` makes of it."""
        answers = scorer.score(model, self._answers)
        passages = scorer.score(model, self._passages)
        # Question by question: the options of one share a pass over everything before them.
        options = [scorer.score(model, rows) for rows in self._options]
        return GeneralScore(
            answers_loss=mean_loss(answers),
            passages_loss=mean_loss(passages),
            loss=mean_loss([*answers, *passages]),
            choices_right=_right(options),
        )


def _right(options: Sequence[Sequence[RowLoss]]) -> float:
    """The share of questions whose first option has the lowest mean loss."""
    return sum(first.mean < min(other.mean for other in others) for first, *others in options) / len(options)


def _chat(question: str, answer: str, tokenizer: Any) -> TokenisedExample:
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
    )
    prompt = tokenizer(text, add_special_tokens=False)["input_ids"]
    completion = tokenizer(answer + tokenizer.eos_token, add_special_tokens=False)["input_ids"]
    return TokenisedExample(input_ids=(*prompt, *completion), prompt_length=len(prompt))


def _passage(text: str, tokenizer: Any) -> TokenisedExample:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return TokenisedExample(input_ids=tuple(ids), prompt_length=_PASSAGE_PROMPT_TOKENS)
