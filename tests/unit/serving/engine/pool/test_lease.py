"""A lease is given back once, and whoever waits for an adapter to be free is woken."""

from __future__ import annotations

import asyncio
import random

import pytest

from kit.errors import LorryError
from serving.engine.pool.lease import Lease, LeaseBook
from serving.errors import AdapterClosed
from tests.support.waiting import settle


def test_a_lease_is_given_back_once_however_often_it_is_released() -> None:
    book = LeaseBook()
    first, second = book.lease("a"), book.lease("a")
    first.release()
    first.release()
    assert book.count("a") == 1
    second.release()
    assert (book.count("a"), list(book.leased)) == (0, [])


def test_a_closed_adapter_gives_no_lease_until_it_is_reopened() -> None:
    book = LeaseBook()
    kept = book.lease("a")
    book.close("a", AdapterClosed("erased"))
    with pytest.raises(AdapterClosed, match="erased"):
        book.lease("a")
    assert book.count("a") == 1, "who holds it goes on"
    book.reopen("a")
    book.lease("a").release()
    kept.release()


async def test_waiting_ends_with_the_last_lease() -> None:
    book = LeaseBook()
    leases = [book.lease("a") for _ in range(3)]
    waiting = asyncio.create_task(book.wait_until_free("a"))
    for lease in leases:
        await asyncio.sleep(0)
        assert not waiting.done()
        lease.release()
    await asyncio.wait_for(waiting, 30)


async def test_what_nobody_leases_is_free_at_once() -> None:
    await asyncio.wait_for(LeaseBook().wait_until_free("a"), 30)


async def test_a_lease_taken_before_the_waiter_runs_again_prolongs_its_wait() -> None:
    book = LeaseBook()
    first = book.lease("a")
    waiting = asyncio.create_task(book.wait_until_free("a"))
    await asyncio.sleep(0)
    first.release()
    second = book.lease("a")
    await settle()
    assert not waiting.done()
    second.release()
    await asyncio.wait_for(waiting, 30)


async def test_holders_are_asked_to_stop_and_release_by_themselves() -> None:
    book = LeaseBook()
    reasons: list[LorryError] = []
    lease = book.lease("a", abort=reasons.append)
    silent = book.lease("a")
    gone = book.lease("a", abort=lambda _: pytest.fail("it was released"))
    gone.release()
    reason = AdapterClosed("erased")
    assert book.abort("a", reason) == 2
    assert (reasons, book.count("a")) == ([reason], 2)
    lease.release()
    silent.release()
    assert book.abort("a", reason) == 0


@pytest.mark.parametrize("seed", range(5))
async def test_no_waiter_sleeps_on_whatever_is_cancelled(seed: int) -> None:
    chance, book = random.Random(seed), LeaseBook()
    leases: list[Lease] = []
    waiters: list[asyncio.Task[None]] = []
    for _ in range(300):
        name = chance.choice("abc")
        match chance.randint(0, 4):
            case 0 | 1:
                leases.append(book.lease(name))
            case 2:
                waiters.append(asyncio.create_task(book.wait_until_free(name)))
            case 3 if waiters:
                chance.choice(waiters).cancel()
            case _ if leases:
                chance.choice(leases).release()
        await asyncio.sleep(0)
    for lease in leases:
        lease.release()
    await asyncio.wait_for(asyncio.gather(*waiters, return_exceptions=True), 30)
    assert not book._waiting
    assert not book._leases
