from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from serving.jobs.turns import Runnable, share

START = datetime(2030, 1, 1, tzinfo=UTC)


def batch(id_: str, *, tenant: str = "t", held: int = 0, age: int = 0) -> Runnable:
    return Runnable(id=id_, tenant=tenant, submitted_at=START - timedelta(seconds=age), held=held)


def test_a_single_batch_gets_every_place() -> None:
    assert share([batch("a")], free=4) == {"a": 4}


def test_without_batches_nobody_gets_anything() -> None:
    assert share([], free=4) == {}


def test_a_tenant_with_many_in_hand_does_not_hold_up_another() -> None:
    assert share([batch("big", tenant="one", held=4, age=9), batch("small", tenant="two")], free=2) == {"small": 2}


def test_tenants_share_equally_whatever_number_of_batches_they_have() -> None:
    batches = [batch("a1", tenant="one"), batch("a2", tenant="one"), batch("b", tenant="two")]
    assert share(batches, free=4) == {"a1": 1, "a2": 1, "b": 2}


def test_among_equals_the_older_batch_comes_first() -> None:
    assert share([batch("new", age=1), batch("old", age=2)], free=1) == {"old": 1}


@given(
    st.lists(st.tuples(st.sampled_from("xyz"), st.integers(0, 9), st.integers(0, 99)), min_size=1, max_size=9),
    st.integers(0, 30),
)
def test_every_place_is_given_and_no_tenant_gains_on_one_that_has_fewer(
    drawn: list[tuple[str, int, int]], free: int
) -> None:
    batches = [batch(str(number), tenant=t, held=h, age=a) for number, (t, h, a) in enumerate(drawn)]
    given_ = share(batches, free=free)
    assert sum(given_.values()) == free
    held = {tenant: sum(b.held for b in batches if b.tenant == tenant) for tenant in {b.tenant for b in batches}}
    got = {tenant: sum(given_.get(b.id, 0) for b in batches if b.tenant == tenant) for tenant in held}
    for one in held:
        for other in held:
            if got[one]:
                assert held[one] + got[one] <= held[other] + got[other] + 1
