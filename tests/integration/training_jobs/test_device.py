"""The base that stays loaded on a worker's device, and when it does not."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from tests.support.training_jobs import Harbour
from training.errors import AdapterUnreadable, LossNotFinite, OutOfMemory
from training.jobs.settings import WorkerSettings
from training.jobs.workshop.device import Device


def go_on() -> None:
    """No job has to stop."""


def device_of(harbour: Harbour) -> Device:
    values = {name.removeprefix("LORRY_").lower(): value for name, value in harbour.environment("one").items()}
    return Device(WorkerSettings.model_validate(values))


async def used(held: AbstractAsyncContextManager[Any], *, error: Exception | None = None) -> Any:
    """Hold something, end with this error, and return what was held."""
    async with held as found:
        if error is not None:
            raise error
    return found


async def test_a_base_on_which_an_adapter_may_have_stayed_halfway_is_loaded_anew(harbour: Harbour) -> None:
    device, base = device_of(harbour), str(harbour.base)
    first, judge = await used(device.trainer(base, check=go_on)), await used(device.evaluator(base, check=go_on))
    with pytest.raises(LossNotFinite):
        await used(device.trainer(base, check=go_on), error=LossNotFinite())
    assert await used(device.trainer(base, check=go_on)) is first, "a user's numbers are no fault of the base"
    with pytest.raises(OutOfMemory):
        await used(device.trainer(base, check=go_on), error=OutOfMemory())
    anew = await used(device.trainer(base, check=go_on))
    assert anew is not first
    with pytest.raises(AdapterUnreadable):
        await used(device.evaluator(base, check=go_on), error=AdapterUnreadable())
    assert await used(device.evaluator(base, check=go_on)) is not judge
    assert await used(device.trainer(base, check=go_on)) is anew
