"""What the gateway says of a thing, the client's result has a field for; and the other way round."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from lorry.client import results
from lorry.client.results import (
    Answer,
    BulkResult,
    ChatAnswer,
    Correction,
    Erasure,
    Extraction,
    ExtractionResult,
    Model,
    Profile,
    ProfileDifference,
    Statement,
    TenantBank,
    Training,
    TrainingDetails,
    TrainingEntry,
    TrainingEvent,
    Transcript,
    TranscriptHead,
    Usage,
)
from tests.support.client_calls import described

SCHEMA = described().openapi()
USER = "/v1/users/{user_id}"
# Each result, and the route's answer that it is read from, or a list in that.
READ_FROM: list[tuple[type[BaseModel], str, str, str]] = [
    (Answer, "post", f"{USER}/query", ""),
    (Statement, "get", f"{USER}/profile", "topics.statements"),
    (ProfileDifference, "get", f"{USER}/profile/difference", ""),
    (Correction, "get", f"{USER}/profile/corrections", "corrections"),
    (TenantBank, "get", "/v1/bank", ""),
    (TranscriptHead, "get", f"{USER}/transcripts", "transcripts"),
    (Transcript, "get", f"{USER}/transcripts/{{transcript_id}}", ""),
    (BulkResult, "post", f"{USER}/transcripts", ""),
    (Training, "get", "/v1/trainings", "trainings"),
    (TrainingDetails, "get", "/v1/trainings/{training_id}", ""),
    (TrainingEntry, "get", "/v1/trainings/{training_id}/events", "events"),
    (Extraction, "get", "/v1/extractions", "extractions"),
    (ExtractionResult, "get", "/v1/extractions/{extraction_id}/results", ""),
    (Model, "get", "/v1/models", "data"),
    (Erasure, "get", f"{USER}/erasure", ""),
    (Usage, "get", "/v1/usage", "usage"),
]
MADE_BY_THE_CLIENT = {Profile, ChatAnswer, TrainingEvent}
NOT_TOLD = {"Model": {"object"}}  # says "model" of every model
OF_THE_CLIENT = {"Transcript": {"name"}, "Statement": {"topic"}}


@pytest.mark.parametrize("read", READ_FROM, ids=lambda read: read[0].__name__)
def test_a_result_has_every_field_that_the_gateway_describes(read: tuple[type[BaseModel], str, str, str]) -> None:
    for model, schema in pairs(*read):
        said = set(schema["properties"]) - NOT_TOLD.get(model.__name__, set())
        assert said == set(model.model_fields) - OF_THE_CLIENT.get(model.__name__, set()), model.__name__


def test_no_result_is_left_out() -> None:
    compared = {model for read in READ_FROM for model, _ in pairs(*read)}
    exported = {value for name in results.__all__ if isinstance(value := getattr(results, name), type)}
    assert exported - MADE_BY_THE_CLIENT <= compared, exported - MADE_BY_THE_CLIENT - compared


def pairs(model: type[BaseModel], verb: str, path: str, name: str) -> Iterator[tuple[type[BaseModel], dict[str, Any]]]:
    """Yield a result with its schema, and those of results in it."""
    (content,) = [
        each["schema"]
        for media_type, each in SCHEMA["paths"][path][verb]["responses"]["200"]["content"].items()
        if media_type.endswith("json") and each.get("schema")
    ]
    schema = resolved(content)
    for each in name.split(".") if name else ():
        schema = resolved(schema["properties"][each])
    yield from nested(model, schema)


def nested(model: type[BaseModel], schema: dict[str, Any]) -> Iterator[tuple[type[BaseModel], dict[str, Any]]]:
    yield model, schema
    for name, field in model.model_fields.items():
        for inner in models_in(field.annotation):
            yield from nested(inner, resolved(schema["properties"][name]))


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for each in get_args(annotation):
        yield from models_in(each)


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the object that a schema is of: what a reference leads to, what a list holds, what may be null."""
    if "$ref" in schema:
        return resolved(SCHEMA["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
    if "items" in schema:
        return resolved(schema["items"])
    if "anyOf" in schema:
        return resolved(next(each for each in schema["anyOf"] if each.get("type") != "null"))
    return schema
