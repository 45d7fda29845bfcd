"""How a remote model is asked, and the JSON it must answer with."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field

from training.writers.plan import Form, Item
from training.writers.questions import load_questions


class Tasks(BaseModel):
    """The task of each form; ``{pairs}`` is how many are wanted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    open: str
    yes_no: str


class Wording(BaseModel):
    """Everything in ``wording.yaml``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = Field(ge=1)
    system: str
    tasks: Tasks

    def shared(self, item: Item) -> str:
        """Return what both requests about a chunk begin with."""
        return f"Turns of the person's conversations:\n{item.chunk.to_text()}"

    def task(self, item: Item) -> str:
        """Return what is asked for."""
        template: dict[Form, str] = {"open": self.tasks.open, "yes_no": self.tasks.yes_no}
        return template[item.form].format(pairs=item.pairs)


@cache
def load_wording() -> Wording:
    """Return the wording that this version of Lorry asks with."""
    text = files("training.writers").joinpath("wording.yaml").read_text(encoding="utf-8")
    return Wording.model_validate(yaml.safe_load(text))


@cache
def topics() -> tuple[str, ...]:
    """Return the topics of the question bank, which a pair's topic must be one of."""
    return tuple(load_questions().topics)


def answer_schema() -> dict[str, Any]:
    """Return the JSON schema of an answer: within what structured outputs of several services take.

    Every property is required and no others are allowed; there are no bounds on numbers or lengths, which are checked
    after reading.
    """
    pair = {
        "type": "object",
        "additionalProperties": False,
        "required": ["question", "answer", "verdict", "topic", "supported", "turn", "quote"],
        "properties": {
            "question": {"type": "string"},
            "answer": {"type": "string"},
            "verdict": {"type": "string", "enum": ["yes", "no", "none"]},
            "topic": {"type": "string", "enum": list(topics())},
            "supported": {"type": "boolean"},
            "turn": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
            "quote": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        },
    }
    return {
        "type": "object",
        "additionalProperties": False,
        "required": ["pairs"],
        "properties": {"pairs": {"type": "array", "items": pair}},
    }
