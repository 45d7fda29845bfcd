"""What travels over the routes of batch extractions."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from kit.names import Name
from serving.extraction.profile import Profile
from serving.jobs.batch import Batch
from serving.jobs.selection import Only
from serving.jobs.states import BatchState, DeliveryState


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class WebhookRequest(_Strict):
    """Who is told when the batch has ended."""

    url: str = Field(min_length=1, max_length=2000, description="https, and public; signed under the tenant's secret")


class ExtractionRequest(_Strict):
    """Which users' profiles are extracted: a list, or everybody with a live adapter."""

    users: list[Name] | None = Field(None, min_length=1, max_length=100_000, description="each counts once")
    everybody: bool = Field(False, description="every user of the tenant with a live version of the default adapter")
    only: Only = Field("all", description="`stale` leaves out who has a profile by the live version and this bank")
    max_age_days: float | None = Field(
        None, ge=0, le=36_500, description="with `stale`: an older profile is stale, too"
    )
    webhook: WebhookRequest | None = None


class ProgressView(_Strict):
    """How far a batch is, in users."""

    users: int = Field(description="0 until a batch of everybody is planned")
    waiting: int
    in_hand: int
    done: int
    failed: int
    skipped: int
    canceled: int
    users_per_minute: float | None = Field(description="measured over the latest users; null until enough were")
    eta_seconds: float | None = Field(description="what is left at that rate; null while it is not known")


class WebhookView(_Strict):
    """What becomes of the message that the batch has ended."""

    url: str
    state: DeliveryState | None = Field(description="null until the batch has ended")
    attempts: int
    problem: str | None = Field(description="why the latest try failed")


class Failure(_Strict):
    """Why something could not be done."""

    code: str
    message: str


class SelectionView(_Strict):
    """What was asked for."""

    everybody: bool
    only: Only
    max_age_days: float | None


class ExtractionView(_Strict):
    """One batch extraction."""

    id: str
    state: BatchState
    selection: SelectionView
    progress: ProgressView
    failures: dict[str, int] = Field(description="users that failed, by reason")
    error: Failure | None = Field(description="why the batch could not be planned")
    webhook: WebhookView | None
    submitted_at: datetime
    planned_at: datetime | None
    ended_at: datetime | None

    @classmethod
    def of(cls, batch: Batch) -> ExtractionView:
        """Return what callers see of a batch."""
        return cls(
            id=batch.id,
            state=batch.state,
            selection=SelectionView(**batch.selection),
            progress=ProgressView(**vars(batch.progress)),
            failures=batch.failures,
            error=Failure(**batch.error) if batch.error else None,
            webhook=WebhookView(**vars(batch.webhook)) if batch.webhook else None,
            submitted_at=batch.submitted_at,
            planned_at=batch.planned_at,
            ended_at=batch.ended_at,
        )


class ExtractionList(_Strict):
    """A page of batches, the latest first; pass the last id as `before` for the next page, null on the last."""

    extractions: list[ExtractionView]
    next_before: str | None


class ResultLine(_Strict):
    """One line of a batch's results."""

    sequence: int = Field(ge=1, description="1, 2, 3 … in the order in which users ended: the cursor")
    user_id: str
    status: Literal["done", "failed", "skipped"]
    version: int | None
    version_id: str | None
    ended_at: datetime | None
    error: Failure | None = Field(description="why there is no profile")
    profile: Profile | None
    withheld: Literal["profiles:read"] | None = Field(
        None, description="the scope that the key lacks, without which no line has its profile"
    )


def inlined_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return a model's JSON Schema without references, for a body that FastAPI does not read itself."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def inlined(value: Any) -> Any:
        if isinstance(value, dict) and "$ref" in value:
            return inlined(definitions[value["$ref"].rpartition("/")[2]])
        if isinstance(value, dict):
            return {name: inlined(child) for name, child in value.items()}
        return [inlined(child) for child in value] if isinstance(value, list) else value

    found: dict[str, Any] = inlined(schema)
    return found
