"""The question bank: topics, what is asked about each, and what answers look like.

The bank is a versioned YAML file; `standard_bank` is the one that Lorry ships, and a tenant may have its own
(`extension.py`). Laws: every topic and question id occurs once; the asks that `Topic.asks` returns for a smaller
count are the first of those for a larger one.
"""

from __future__ import annotations

from functools import cache
from itertools import chain, zip_longest
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from serving.errors import BankInvalid
from serving.extraction.bank.answer_schema import check_answer_schema
from serving.extraction.bank.document import read_document, validated

STANDARD_BANK = Path(__file__).with_name("standard.yaml")

_MOST_CUES = 1000  # each is looked for in everything that a user has said
_Text = Annotated[str, Field(min_length=1, max_length=200)]
_Identifier = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.]{0,63}$")]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Question(_Frozen):
    """One thing to ask, in several wordings; `answer_schema` is the JSON Schema that the engine enforces."""

    id: _Identifier
    paraphrases: tuple[_Text, ...] = Field(min_length=2, max_length=8)
    answer_schema: dict[str, Any]

    @model_validator(mode="after")
    def _can_be_asked(self) -> Self:
        check_answer_schema(self.answer_schema, question=self.id)
        if len(set(self.paraphrases)) != len(self.paraphrases):
            raise ValueError(f"{self.id}: a paraphrase occurs twice")
        return self


class Ask(_Frozen):
    """One question in one wording."""

    topic: str
    question_id: str
    text: str
    answer_schema: dict[str, Any]


class Topic(_Frozen):
    """One section of a profile, and how to tell that a statement belongs to it."""

    topic: _Identifier
    title: _Text
    stance: Literal["likes", "dislikes"] | None = None
    cues: tuple[_Text, ...] = Field((), max_length=200)
    questions: tuple[Question, ...] = Field(min_length=1, max_length=20)

    @model_validator(mode="after")
    def _can_be_recognised(self) -> Self:
        if not self.stance and not self.cues:
            raise ValueError(f"{self.topic}: needs `stance` or `cues`, or nothing could be filed under it")
        return self

    def asks(self, count: int) -> list[Ask]:
        """Return up to `count` asks: each question's first wording, then each one's second, and so on."""
        columns = [
            [
                Ask(topic=self.topic, question_id=q.id, text=text, answer_schema=q.answer_schema)
                for text in q.paraphrases
            ]
            for q in self.questions
        ]
        return [ask for ask in chain.from_iterable(zip_longest(*columns)) if ask is not None][:count]


class Bank(_Frozen):
    """Everything that extraction asks."""

    name: _Identifier
    version: _Text
    topics: tuple[Topic, ...] = Field(min_length=1, max_length=50)

    @model_validator(mode="after")
    def _names_occur_once(self) -> Self:
        names = [t.topic for t in self.topics] + [q.id for t in self.topics for q in t.questions]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"occurs twice: {', '.join(twice)}")
        if sum(len(topic.cues) for topic in self.topics) > _MOST_CUES:
            raise ValueError(f"the topics have more than {_MOST_CUES} cues together")
        return self

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a YAML file that holds a whole bank.

        Raises:
            BankInvalid: naming the file, the entry and the reason.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8"
            raise BankInvalid(f"{path} cannot be read: {reason}", field=str(path)) from exc
        return validated(cls, read_document(text, name=str(path)), name=str(path))


@cache
def standard_bank() -> Bank:
    """Return the bank that Lorry ships."""
    return Bank.read(STANDARD_BANK)
