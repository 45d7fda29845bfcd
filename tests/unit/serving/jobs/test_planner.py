from datetime import UTC, datetime, timedelta

import pytest

from serving.jobs.planning.planner import is_fresh
from serving.jobs.planning.repository import Known

NOW = datetime(2030, 1, 10, tzinfo=UTC)
BANK = ("lorry.standard", "1")


@pytest.mark.parametrize(
    ("version_id", "bank", "age_days", "max_age_days", "fresh"),
    [
        ("v1", BANK, 3, None, True),
        ("v2", BANK, 3, None, False),
        ("v1", ("lorry.standard", "2"), 3, None, False),
        ("v1", (None, None), 3, None, False),
        ("v1", BANK, 3, 3, True),
        ("v1", BANK, 3, 2.9, False),
        ("v1", BANK, 0, 0, True),
    ],
)
def test_a_profile_is_fresh_when_version_bank_and_age_are_right(
    version_id: str, bank: tuple[str, str], age_days: float, max_age_days: float | None, fresh: bool
) -> None:
    profile = Known(version_id=version_id, bank=bank, created_at=NOW - timedelta(days=age_days))
    assert is_fresh(profile, version_id="v1", bank=BANK, now=NOW, max_age_days=max_age_days) is fresh
