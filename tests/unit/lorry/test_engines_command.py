from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from lorry.commands.engines import ago, receipt_row, row_of
from registry.engines.schemas import EngineSummary, Tier


def engine(**changes: Any) -> EngineSummary:
    now = datetime.now(UTC)
    values: dict[str, Any] = {
        "id": "local-1",
        "state": "alive",
        "base_id": "base",
        "address": "http://127.0.0.1:8100",
        "facts": {},
        "registered_at": now,
        "last_seen_at": now,
        "left_at": None,
        "silent_seconds": 1.4,
        "held": {Tier.DISK: 7, Tier.HOST: 3, Tier.DEVICE: 0},
        "leases": 2,
    }
    return EngineSummary(**(values | changes))


def test_a_row_shows_what_is_held_by_tier() -> None:
    assert row_of(engine()) == ["local-1", "alive", "1 s ago", "base", "http://127.0.0.1:8100", "7", "3", "0", "2"]


def test_a_lapsed_engine_and_an_unknown_base_stand_out() -> None:
    assert row_of(engine(state="lapsed", base_id=None, address=None, silent_seconds=3700))[1:5] == [
        "LAPSED",
        "62 min ago",
        "not registered",
        "—",
    ]


def test_a_receipt_is_shown_with_dashes_for_what_was_not_touched() -> None:
    receipt = {"version_id": "v1", "because": "withheld", "ordered_by": "registry", "at": "2026-11-21T11:30:00+00:00"}
    removal = {"named": True, "host_bytes": 70, "slots_zeroed": 1, "workers": 1}
    full = receipt | {"memory": {"leases": 2, "refused": 0, "removal": removal}, "disk_bytes": None}
    assert receipt_row("gpu-7", full)[3:] == ["withheld", "registry", "2", "70", "1", "—"]
    assert receipt_row("gpu-7", receipt | {"memory": None, "disk_bytes": 9})[5:] == ["—", "—", "—", "9"]


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.2, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (200_000, "2 days")]
)
def test_a_duration_is_shown_in_a_unit_that_fits(seconds: float, shown: str) -> None:
    assert ago(seconds) == shown
