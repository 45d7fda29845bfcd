"""The question bank: topics, what is asked about each, and what answers look like.

The bank is a versioned YAML file; `standard_bank` is the one that Lorry ships. Laws: every topic and question id
occurs once; the asks that `Topic.asks` returns for a smaller count are the first of those for a larger one.
"""

from __future__ import annotations

from functools import cache
from itertools import chain, zip_longest
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from serving.errors import BankInvalid

STANDARD_BANK = Path(__file__).with_name("bank.yaml")

_Text = Annotated[str, Field(min_length=1, max_length=200)]
_Identifier = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.]{0,63}$")]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Question(_Frozen):
    """One thing to ask, in several wordings; `answer_schema` is the JSON Schema that the engine enforces."""

    id: _Identifier
    paraphrases: tuple[_Text, ...] = Field(min_length=2, max_length=4)
    answer_schema: dict[str, Any]

    @model_validator(mode="after")
    def _answers_are_strings(self) -> Self:
        answers = self.answer_schema.get("properties", {}).get("answers", {})
        is_list = answers.get("type") == "array" and answers.get("items", {}).get("type") == "string"
        if self.answer_schema.get("type") != "string" and not is_list:
            raise ValueError(f"{self.id}: answer_schema must be a string, or have `answers`, an array of strings")
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
    cues: tuple[_Text, ...] = ()
    questions: tuple[Question, ...] = Field(min_length=1)

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
    topics: tuple[Topic, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_occur_once(self) -> Self:
        names = [t.topic for t in self.topics] + [q.id for t in self.topics for q in t.questions]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"occurs twice: {', '.join(twice)}")
        return self

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a YAML file.

        Raises:
            BankInvalid: naming the file, the entry and the reason.
        """
        try:
            value = yaml.safe_load(path.read_text(encoding="utf-8"))
        except OSError as exc:
            raise BankInvalid(f"{path} cannot be read: {exc.strerror}", field=str(path)) from exc
        except (yaml.YAMLError, UnicodeDecodeError) as exc:
            raise BankInvalid(f"{path} is not YAML: {exc}", field=str(path)) from exc
        if not isinstance(value, dict):
            raise BankInvalid(f"{path} must hold name, version and topics", field=str(path))
        # The shared schema stands at the top of the file only so that YAML can anchor it.
        value.pop("answer_schema", None)
        try:
            return cls.model_validate(value)
        except ValidationError as exc:
            first = exc.errors()[0]
            field = ".".join(str(part) for part in first["loc"]) or str(path)
            raise BankInvalid(f"{path}: {field}: {first['msg']}", field=field) from exc


@cache
def standard_bank() -> Bank:
    """Return the bank that Lorry ships."""
    return Bank.read(STANDARD_BANK)
