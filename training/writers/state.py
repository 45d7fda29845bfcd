"""Where a question writer's work stands: ids, counts and costs, and no word of anybody's.

Laws: ``WriterState.from_json(s.to_json()) == s``; every change is a new state.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Self

from training.errors import WriterStale
from training.writers.cost import FREE, Cost

SCHEMA = "lorry.writer-state/1"

Phase = Literal["prepared", "submitting", "running", "written", "discarding", "discarded"]
Outcome = Literal["open", "asked", "done", "given_up"]


@dataclass(frozen=True, kw_only=True)
class ItemState:
    """One request of the plan: whether it is answered, how often it was asked, and why it was not answered.

    `batch` is the batch whose results hold its answer; None for one that was answered at once.
    """

    outcome: Outcome = "open"
    attempts: int = 0
    reason: str | None = None
    batch: str | None = None


@dataclass(frozen=True, kw_only=True)
class WriterState:
    """All that must be kept between two steps.

    `plan` is the digest of what is asked, so that other transcripts are noticed. `batch` is the one that runs now,
    `batches` are all that were ever submitted, `deleted` those that the service keeps no longer; `intent_at` is when
    the next batch was decided on, in seconds since 1970, by which one whose submission was cut short is found again.
    `mode` is how the service is asked for JSON, and `wait_seconds` how long to wait before the next step.
    """

    writer: str
    plan: str
    phase: Phase
    items: Mapping[str, ItemState] = field(default_factory=dict)
    batch: str | None = None
    batches: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    intent_at: float | None = None
    spent: Cost = FREE
    mode: str | None = None
    wait_seconds: float = 0.0

    @property
    def written(self) -> bool:
        """Whether everything was answered or given up, and can be collected."""
        return self.phase == "written"

    @property
    def discarded(self) -> bool:
        """Whether nothing is left to stop or delete."""
        return self.phase == "discarded"

    @property
    def progress(self) -> tuple[int, int]:
        """How many requests are settled, of how many."""
        return sum(item.outcome in {"done", "given_up"} for item in self.items.values()), len(self.items)

    def named(self, outcome: Outcome) -> list[str]:
        """Return the ids of the items with that outcome, in the plan's order."""
        return [name for name, item in self.items.items() if item.outcome == outcome]

    def with_items(self, changed: Mapping[str, ItemState]) -> WriterState:
        """Return the state with some items replaced."""
        return replace(self, items={**self.items, **changed})

    def asked_in(self, batch: str, names: Iterable[str]) -> WriterState:
        """Return the state in which those items were just asked in `batch`."""
        return self.with_items(
            {
                name: replace(self.items[name], outcome="asked", attempts=self.items[name].attempts + 1, batch=batch)
                for name in names
            }
        )

    def require(self, *, writer: str, plan: str) -> None:
        """Check that the state belongs to this writer and these transcripts.

        Raises:
            WriterStale: otherwise.
        """
        if self.writer != writer:
            raise WriterStale(f"this was begun by the writer {self.writer}, and {writer} cannot continue it")
        if self.plan != plan:
            raise WriterStale("the transcripts, or how they are asked about, have changed since this was begun")

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, which `from_json` reads."""
        return {
            **asdict(replace(self, items={})),
            "schema": SCHEMA,
            "items": {name: asdict(item) for name, item in self.items.items()},
            "batches": list(self.batches),
            "deleted": list(self.deleted),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Rebuild what `to_json` wrote.

        Raises:
            WriterStale: for a state of another version of this form.
        """
        if value.get("schema") != SCHEMA:
            raise WriterStale(f"a writer's state has the schema {value.get('schema')!r}, not {SCHEMA}")
        plain = {key: each for key, each in value.items() if key != "schema"}
        return cls(
            **{
                **plain,
                "items": {name: ItemState(**item) for name, item in value["items"].items()},
                "batches": tuple(value["batches"]),
                "deleted": tuple(value["deleted"]),
                "spent": Cost.from_json(value["spent"]),
            }
        )
