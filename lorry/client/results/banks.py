"""The question bank that a tenant's users are asked."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from lorry.client.results.result import Result


class BankQuestion(Result):
    """One thing that is asked, in several wordings; answers follow the JSON Schema."""

    id: str
    paraphrases: tuple[str, ...]
    answer_schema: dict[str, Any]


class BankTopic(Result):
    """One section of a profile, and how a statement is known to belong to it."""

    topic: str
    title: str
    stance: str | None = None
    cues: tuple[str, ...] = ()
    questions: tuple[BankQuestion, ...]


class QuestionBank(Result):
    """Everything that extraction asks."""

    name: str
    version: str
    topics: tuple[BankTopic, ...]


class TenantBank(Result):
    """What the tenant's users are asked now; `document` and the like are None for the bank that Lorry ships."""

    bank: QuestionBank
    revision: int | None
    document: str | None
    made_by: str | None
    made_at: datetime | None
