"""What a person decided about single pairs: kept by themselves, applied whenever the dataset is built.

A decision names a pair by its key, which depends on what the pair asks and answers: it holds as long as the pair is
written again, whatever else changes. Laws: ``Curation.from_json(c.to_json()) == c``; decisions about pairs that are not
written any more do nothing and are kept; dropping and restoring leaves no trace in a dataset.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal, Self

from kit.canonical import sha256_json
from training.errors import CurationInvalid
from training.examples import Example, Message

SCHEMA = "lorry.curation/1"
_MAX_CHARACTERS = 20_000

Action = Literal["drop", "edit"]


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What is done with one pair; `question` and `completion` are what an edit puts in place; None = as written.

    `transcript_id` says which conversation an edited pair is from: the edit goes when that is erased. `by` and `at` say
    who decided and when. None of the three is part of a dataset.
    """

    action: Action
    question: str | None = None
    completion: str | None = None
    transcript_id: str | None = None
    by: str = ""
    at: str = ""

    @property
    def effect(self) -> dict[str, Any]:
        """What the decision does to a dataset, whoever took it."""
        return {"action": self.action, "question": self.question, "completion": self.completion}


@dataclass(frozen=True, kw_only=True)
class Applied:
    """Examples after curation, and which decisions did something.

    `edited` maps the keys of edited examples, as they are now, to those that they had.
    """

    examples: tuple[Example, ...]
    dropped: tuple[str, ...]
    edited: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Curation:
    """One user's decisions by the key of the pair as it was written."""

    decisions: Mapping[str, Decision] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """SHA-256 of what the decisions do."""
        return sha256_json({key: decision.effect for key, decision in self.decisions.items()})

    def apply(self, examples: Sequence[Example]) -> Applied:
        """Drop and edit; the order stays, and nothing takes the place of what is dropped."""
        kept: list[Example] = []
        dropped: list[str] = []
        edited: dict[str, str] = {}
        for example in examples:
            decision = self.decisions.get(example.key)
            if decision is None:
                kept.append(example)
            elif decision.action == "drop":
                dropped.append(example.key)
            else:
                kept.append(edit(example, question=decision.question, completion=decision.completion))
                edited[kept[-1].key] = example.key
        return Applied(examples=tuple(kept), dropped=tuple(dropped), edited=edited)

    @property
    def texts(self) -> tuple[str, ...]:
        """Everything that somebody has typed."""
        given = (text for each in self.decisions.values() for text in (each.question, each.completion))
        return tuple(text for text in given if text is not None)

    def with_texts(self, texts: Sequence[str]) -> Curation:
        """Return the curation with other texts in the places of its `texts`."""
        new: dict[str | None, str] = dict(zip(self.texts, texts, strict=True))
        return Curation(
            decisions={
                key: replace(each, question=new.get(each.question), completion=new.get(each.completion))
                for key, each in self.decisions.items()
            }
        )

    def with_drop(self, key: str, *, by: str = "") -> Curation:
        """Return the curation in which that pair is dropped."""
        return self._with(key, Decision(action="drop", by=by, at=_now()))

    def with_edit(self, example: Example, *, question: str | None, completion: str | None, by: str = "") -> Curation:
        """Return the curation in which that pair, as it was written, has another question or answer.

        Raises:
            CurationInvalid: nothing would change, or the new text is empty or too long.
        """
        for name, text in (("question", question), ("completion", completion)):
            if text is not None and len(text) > _MAX_CHARACTERS:
                raise CurationInvalid(f"the {name} is longer than {_MAX_CHARACTERS} characters", field=name)
        changed = edit(example, question=question, completion=completion)
        if changed == example:
            raise CurationInvalid("the edit changes nothing", field=example.key)
        decision = Decision(
            action="edit",
            question=question,
            completion=completion,
            transcript_id=example.transcript_id,
            by=by,
            at=_now(),
        )
        return self._with(example.key, decision)

    def without(self, key: str) -> Curation:
        """Return the curation without a decision about that pair."""
        return self.about(self.decisions.keys() - {key})

    def about(self, keys: Set[str]) -> Curation:
        """Return the curation with the decisions about these pairs only."""
        return Curation(decisions={key: each for key, each in self.decisions.items() if key in keys})

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, which `from_json` reads."""
        return {
            "schema": SCHEMA,
            "decisions": {
                key: {
                    **decision.effect,
                    "transcript_id": decision.transcript_id,
                    "by": decision.by,
                    "at": decision.at,
                }
                for key, decision in sorted(self.decisions.items())
            },
        }

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Rebuild what `to_json` wrote.

        Raises:
            CurationInvalid: it is something else, naming the decision.
        """
        if not isinstance(value, dict) or value.get("schema") != SCHEMA:
            raise CurationInvalid(f"a curation has the schema {SCHEMA}", field="schema")
        decisions = value.get("decisions")
        if not isinstance(decisions, dict):
            raise CurationInvalid("a curation has decisions by key", field="decisions")
        return cls(decisions={key: _decision(key, each) for key, each in decisions.items()})

    def _with(self, key: str, decision: Decision) -> Curation:
        return Curation(decisions={**self.decisions, key: decision})


def edit(example: Example, *, question: str | None, completion: str | None) -> Example:
    """Return the example with its last message, or its answer, replaced.

    A yes/no question stays one only while its answer begins with its verdict. How long a text is, is asked of what
    somebody types and not here: redaction can make it longer.

    Raises:
        CurationInvalid: a text is empty, or holds what cannot be stored.
    """
    for name, text in (("question", question), ("completion", completion)):
        if text is None:
            continue
        if not text.strip():
            raise CurationInvalid(f"the {name} is empty; drop the pair instead", field=name)
        if "\x00" in text or any("\ud800" <= character <= "\udfff" for character in text):
            raise CurationInvalid(f"the {name} holds a character that cannot be stored", field=name)
    prompt = example.prompt
    if question is not None:
        prompt = (*prompt[:-1], Message(role="user", content=question.strip()))
    answer = completion.strip() if completion is not None else example.completion
    verdict = example.answer
    if verdict is not None and not answer.lower().startswith(verdict):
        verdict = next((each for each in ("yes", "no") if answer.lower().startswith(each)), None)
    return replace(example, prompt=prompt, completion=answer, answer=verdict)


def _decision(key: str, value: Any) -> Decision:
    try:
        decision = Decision(
            action=value["action"],
            question=value["question"],
            completion=value["completion"],
            transcript_id=value.get("transcript_id"),
            by=str(value.get("by", "")),
            at=str(value.get("at", "")),
        )
    except (KeyError, TypeError, AttributeError) as exc:
        raise CurationInvalid(f"the decision about {key} lacks {exc}", field=key) from exc
    texts = (decision.question, decision.completion, decision.transcript_id)
    if decision.action not in ("drop", "edit") or not all(text is None or isinstance(text, str) for text in texts):
        raise CurationInvalid(f"the decision about {key} is neither a drop nor an edit", field=key)
    return decision


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
