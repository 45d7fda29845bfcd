"""The public API from an application: `Client` blocks, `AsyncClient` is awaited; both say the same."""

from lorry.client.async_client import AsyncClient
from lorry.client.client import Client
from lorry.client.errors import (
    ApiError,
    Conflict,
    Forbidden,
    Invalid,
    NotAnswered,
    NotFound,
    RateLimited,
    Refused,
    Unauthenticated,
    Unavailable,
)
from lorry.client.results import (
    AdapterVersion,
    Answer,
    BulkResult,
    ChatAnswer,
    Profile,
    Training,
    TrainingEvent,
    Transcript,
    TranscriptHead,
    Turn,
    Usage,
)

__all__ = [
    "AdapterVersion",
    "Answer",
    "ApiError",
    "AsyncClient",
    "BulkResult",
    "ChatAnswer",
    "Client",
    "Conflict",
    "Forbidden",
    "Invalid",
    "NotAnswered",
    "NotFound",
    "Profile",
    "RateLimited",
    "Refused",
    "Training",
    "TrainingEvent",
    "Transcript",
    "TranscriptHead",
    "Turn",
    "Unauthenticated",
    "Unavailable",
    "Usage",
]
