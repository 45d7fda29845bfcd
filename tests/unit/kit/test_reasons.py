from __future__ import annotations

from enum import StrEnum

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from kit.reasons import describe, place_name


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Thing(BaseModel):
    model_config = ConfigDict(extra="forbid")

    colour: Colour = Colour.RED
    size: int = Field(1, ge=1)
    name: str = Field("x", min_length=1)
    even: int = 2

    @field_validator("even")
    @classmethod
    def _even(cls, value: int) -> int:
        if value % 2:
            raise ValueError(f"{value} is odd")
        return value


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"colour": "green"}, ("colour", "must be one of 'red' or 'blue'")),
        ({"size": 0}, ("size", "must be greater than or equal to 1")),
        ({"size": "big"}, ("size", "must be a valid integer, unable to parse string as an integer")),
        ({"name": ""}, ("name", "must have at least 1 character")),
        ({"even": 3}, ("even", "3 is odd")),
        ({"moons": 1}, ("moons", "is not a field that is known here")),
    ],
)
def test_a_refusal_reads_after_the_fields_name(given: dict[str, object], told: tuple[str, str]) -> None:
    with pytest.raises(ValidationError) as refused:
        Thing.model_validate(given)
    assert describe(refused.value.errors()[0]) == told


def test_what_is_no_json_is_said_to_be_that() -> None:
    error = {"type": "json_invalid", "loc": ("body", 7), "msg": "JSON decode error"}
    told = describe({**error, "ctx": {"error": "Expecting value"}})
    assert told == ("body", "is not JSON at character 7: Expecting value")
    with pytest.raises(ValidationError) as refused:
        Thing.model_validate_json("{")
    assert describe(refused.value.errors()[0])[1].startswith("Invalid JSON")


@pytest.mark.parametrize(
    ("field", "name"), [("query.state", "state"), ("body", "body"), ("body.a.0", "a.0"), ("user_id", "user_id")]
)
def test_a_fields_name_is_told_without_its_place_in_a_request(field: str, name: str) -> None:
    assert place_name(field) == name
