"""Calls about models, as OpenAI's API names adapters."""

from __future__ import annotations

import re

from lorry.client.calls.call import PAGE_ROWS, Call, Page, given, model, page, segment
from lorry.client.results import Model

_PATH = "/v1/models"


def list_page(*, cursor: str | None) -> Call[Page[Model]]:
    """Read one page of the tenant's models."""
    params = given(cursor=cursor, limit=PAGE_ROWS)
    return Call(method="GET", path=_PATH, params=params, read=page(Model, "data"))


def get(name: str) -> Call[Model]:
    """Read one model."""
    path = "".join(each if each in {"/", "@"} else segment(each, field="model") for each in re.split("([/@])", name))
    return Call(method="GET", path=f"{_PATH}/{path}", read=model(Model))
