"""Who may send another webhook's message now."""

from __future__ import annotations

from serving.jobs.webhooks.places import AT_ONCE, OF_A_HOST, OF_A_TENANT, Places


def test_a_receiver_and_a_tenant_are_full_before_all_places_are_taken() -> None:
    places = Places()
    for number in range(OF_A_TENANT):
        assert (places.full_tenants(), places.are_taken) == ((), False)
        assert places.full_hosts() == (("one",) if number >= OF_A_HOST else ())
        places.take("ann's", "one")
    assert places.full_tenants() == places.tenants() == ("ann's",)
    places.leave("ann's", "one")
    assert places.full_tenants() == ()
    for number in range(AT_ONCE - OF_A_TENANT + 1):
        assert not places.are_taken
        places.take(f"tenant {number}", f"host {number}")
    assert places.are_taken


def test_who_has_left_leaves_nothing_behind() -> None:
    places = Places()
    places.take("a", "x")
    places.take("b", "x")
    places.leave("a", "x")
    assert (places.tenants(), places.full_hosts()) == (("b",), ())
    places.leave("b", "x")
    assert (places.tenants(), places.are_taken) == ((), False)
