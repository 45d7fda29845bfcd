"""docs/api.md says what to do about every refusal that the gateway has a word for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kit.errors import LorryError, problem_code
from serving.errors import (
    ApiKeyNotFound,
    BudgetTooSmall,
    EngineCallError,
    ExtractionError,
    GatewayError,
    ProfileExists,
    UnknownScope,
)
from serving.jobs.errors import BatchError, TookTooLong, WebhookFailed, WorkerIdTaken, WorkersDied

PAGE = (Path(__file__).parents[4] / "docs" / "api.md").read_text()
ROOTS = (GatewayError, EngineCallError, ExtractionError, BatchError)
NOT_OVER_HTTP = {ApiKeyNotFound, UnknownScope, BudgetTooSmall, ProfileExists, WebhookFailed, WorkerIdTaken}
OF_ONE_USER_IN_A_BATCH = {TookTooLong, WorkersDied}


def below(error: type[LorryError]) -> Iterator[type[LorryError]]:
    for child in error.__subclasses__():
        yield child
        yield from below(child)


REFUSALS = [each for root in ROOTS for each in below(root) if each not in NOT_OVER_HTTP | OF_ONE_USER_IN_A_BATCH]


@pytest.mark.parametrize("error", REFUSALS, ids=problem_code)
def test_every_refusal_of_the_gateway_stands_in_its_page(error: type[LorryError]) -> None:
    assert f"`{problem_code(error)}`" in PAGE
