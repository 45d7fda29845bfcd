"""Balanced yes/no questions about the user: does the adapter know, or does it agree with everything?

The questions are those the dataset answers with yes or no, in wordings that training never showed. There are as many
with yes as with no; the answer is whichever of the two words the model finds likelier, so nothing is sampled.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from training.evaluation.scoring import Scorer
from training.examples import Example

_WORDINGS = (
    "{question} Answer yes or no.",
    "A quick question, just yes or no: {question}",
    "Tell me honestly. {question} Yes or no?",
)
_BEGINS = re.compile(r"(yes|no)\b", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked, and whether the user's words say yes."""

    text: str
    yes: bool


@dataclass(frozen=True, kw_only=True)
class YesNo:
    """Answers to `questions` questions, half of them with yes for an answer.

    `accuracy` is the mean of the shares answered rightly among those with yes and those with no, so that agreeing with
    everything scores 0.5; `yes_rate` is the share answered with yes. `base_accuracy` and `base_yes_rate` are the
    base's.
    """

    questions: int
    accuracy: float
    yes_rate: float
    base_accuracy: float
    base_yes_rate: float

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, which `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Rebuild what `to_json` wrote."""
        return cls(**value)


def choose_questions(examples: Sequence[Example], *, limit: int, seed: int) -> list[Question]:
    """Return at most `limit` reworded questions, as many with yes as with no; none when either kind is missing."""
    rng = random.Random(f"yes-no:{seed}")
    by_answer: dict[bool, dict[str, Question]] = {True: {}, False: {}}
    for example in examples:
        answer = _answer(example)
        if answer is not None:
            question = example.prompt[-1].content
            wording = rng.choice(_WORDINGS).format(question=question)
            by_answer[answer == "yes"].setdefault(question, Question(text=wording, yes=answer == "yes"))
    each = min(limit // 2, len(by_answer[True]), len(by_answer[False]))
    return [question for yes in (True, False) for question in rng.sample([*by_answer[yes].values()], each)]


class Questionnaire:
    """Questions to one user's models, tokenised once."""

    def __init__(self, questions: Sequence[Question], tokenizer: Any) -> None:
        self._questions = questions
        self._rows = [_row(question.text, tokenizer) for question in questions]
        self._yes, self._no = _first_tokens("yes", tokenizer), _first_tokens("no", tokenizer)

    @property
    def size(self) -> int:
        """How many questions there are."""
        return len(self._questions)

    def ask(self, model: Any, scorer: Scorer) -> tuple[float, float]:
        """Return the balanced accuracy and the rate of yes."""
        scores = scorer.next_tokens(model, self._rows, [*self._yes, *self._no])
        yes = scores[:, : len(self._yes)].logsumexp(-1)
        no = scores[:, len(self._yes) :].logsumexp(-1)
        said = [bool(answer) for answer in yes > no]
        right = {kind: [s == q.yes for s, q in zip(said, self._questions, strict=True) if q.yes is kind] for kind in
                 (True, False)}  # fmt: skip
        accuracy = sum(sum(hits) / len(hits) for hits in right.values()) / len(right)
        return accuracy, sum(said) / len(said)


def _answer(example: Example) -> str | None:
    """What a yes/no question is answered with: as its writer says, or as its answer begins; None for other examples."""
    if example.kind == "reply" or len(example.prompt) != 1:
        return None
    begins = _BEGINS.match(example.completion.strip())
    return example.answer or (begins[1].lower() if begins else None)


def _row(question: str, tokenizer: Any) -> list[int]:
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
    )
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _first_tokens(word: str, tokenizer: Any) -> list[int]:
    """The first tokens of the spellings of a word, without those that begin both words."""
    spellings = (word, word.capitalize(), word.upper())
    return sorted({tokenizer(spelling, add_special_tokens=False)["input_ids"][0] for spelling in spellings})
