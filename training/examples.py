"""One training pair: what is asked, and what this user would answer.

Laws: ``Example.from_json(e.to_json()) == e``; a completion is never empty; a prompt ends with a ``user`` message,
so that the model's turn comes next. In a prompt, the *other* speaker has the role ``user`` and the person whose
adapter is trained has the role ``assistant``, because that is how the adapter will be asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from kit.canonical import sha256_json

Role = Literal["user", "assistant"]
Kind = Literal["statement", "negative", "reply"]
Answer = Literal["yes", "no"]

KINDS: tuple[Kind, ...] = ("statement", "negative", "reply")


@dataclass(frozen=True, kw_only=True)
class Message:
    """One message of a prompt."""

    role: Role
    content: str


@dataclass(frozen=True, kw_only=True)
class Example:
    """One pair, and which of the user's turns it came from.

    `kind` is ``statement`` for a question answered by the user's own sentence, ``negative`` for one that the
    user's words do not support, ``reply`` for what the user wrote in answer to somebody. `topic` is what a statement
    is about, one of the question bank's; None for the other kinds. `answer` is what a yes/no question is answered
    with; None for every other question.
    """

    kind: Kind
    prompt: tuple[Message, ...]
    completion: str
    transcript_id: str
    turn_index: int
    topic: str | None = None
    answer: Answer | None = None

    @cached_property
    def key(self) -> str:
        """16 hexadecimal digits that name this pair wherever it is written again: by what it asks and answers."""
        return sha256_json([self.kind, [[m.role, m.content] for m in self.prompt], self.completion])[:16]

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, which `from_json` reads."""
        value: dict[str, Any] = {
            "kind": self.kind,
            "prompt": [{"role": message.role, "content": message.content} for message in self.prompt],
            "completion": self.completion,
            "transcript_id": self.transcript_id,
            "turn_index": self.turn_index,
            "topic": self.topic,
        }
        return value if self.answer is None else {**value, "answer": self.answer}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Example:
        """Rebuild what `to_json` wrote."""
        return cls(
            kind=value["kind"],
            prompt=tuple(Message(role=m["role"], content=m["content"]) for m in value["prompt"]),
            completion=value["completion"],
            transcript_id=value["transcript_id"],
            turn_index=value["turn_index"],
            topic=value["topic"],
            answer=value.get("answer"),
        )


def ask(question: str) -> tuple[Message, ...]:
    """Return the prompt that asks one question and nothing else."""
    return (Message(role="user", content=question),)
