from __future__ import annotations

from datetime import UTC, datetime, timedelta

from serving.engine.ledger import LoadLedger, LoadRecord


def record(version_id: str, **seconds: float) -> LoadRecord:
    return LoadRecord(version_id=version_id, seconds=dict(seconds))


def test_the_slowest_loads_stay_each_version_once_and_no_more_than_so_many() -> None:
    ledger = LoadLedger(slowest=3)
    for number in range(10):
        ledger.loaded(record(f"v{number}", download=float(number), engine_load=0.5, read=99.0))
    ledger.loaded(record("v9", engine_load=0.1))
    assert [(each["version_id"], each["seconds"]) for each in ledger.slowest()] == [
        ("v9", 9.5), ("v8", 8.5), ("v7", 7.5),
    ]  # fmt: skip
    assert {each["source"] for each in ledger.slowest()} == {"registry"}


def test_failing_versions_are_forgotten_when_they_load_or_when_there_are_too_many() -> None:
    ledger = LoadLedger(failing=2)
    for name in ("a", "b", "b", "c"):
        ledger.failed(record(name), reason="damaged")
    assert [(each["version_id"], each["failures"]) for each in ledger.failing()] == [("c", 1), ("b", 2)]
    ledger.loaded(record("b"))
    assert [each["version_id"] for each in ledger.failing()] == ["c"]
    ledger.forget("c")
    assert ledger.failing() == []


def test_what_was_slow_long_ago_is_no_news() -> None:
    now = datetime(2026, 11, 21, tzinfo=UTC)
    ledger = LoadLedger(now=lambda: now)
    ledger.loaded(record("old", download=9.0))
    now += timedelta(minutes=59)
    ledger.loaded(record("young", download=1.0))
    assert [each["version_id"] for each in ledger.slowest()] == ["old", "young"]
    now += timedelta(minutes=2)
    assert [each["version_id"] for each in ledger.slowest()] == ["young"]
    ledger.loaded(record("old", download=0.5))
    assert [(each["version_id"], each["seconds"]) for each in ledger.slowest()] == [("young", 1.0), ("old", 0.5)]
