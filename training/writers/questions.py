"""The wording of the offline question writer, read from its data file."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import yaml
from pydantic import BaseModel, ConfigDict, Field


class YesNo(BaseModel):
    """Questions about one thing; ``{object}`` is where it goes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    like: str
    dislike: str


class Answers(BaseModel):
    """How a yes/no question is answered; ``{sentence}`` is the user's own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    affirmed: str
    denied: str
    unsaid: str


class Questions(BaseModel):
    """Everything in ``questions.yaml``; `topics` has the same keys as the question bank of extraction."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = Field(ge=1)
    topics: dict[str, tuple[str, ...]]
    yes_no: YesNo
    answers: Answers
    unsaid_objects: tuple[str, ...]


@cache
def load_questions() -> Questions:
    """Return the wording that this version of Lorry asks with."""
    text = files("training.writers").joinpath("questions.yaml").read_text(encoding="utf-8")
    return Questions.model_validate(yaml.safe_load(text))
