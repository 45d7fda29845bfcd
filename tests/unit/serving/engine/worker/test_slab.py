"""Slots in one piece: where a layer's tensors lie in them, and how few copies fill one."""

from __future__ import annotations

import torch

from serving.engine.worker.layouts import Cut, Region, Run
from serving.engine.worker.slab import Slab

ROOMS = {("q", 0, "a"): (2, 3), ("q", 0, "b"): (4, 2), ("k", 0, "a"): (2, 3)}
A: Region = ("q", 0, "a", 2, 3)
B: Region = ("q", 0, "b", 4, 2)
K: Region = ("k", 0, "a", 2, 3)


def slab() -> Slab:
    return Slab(ROOMS, slots=3, dtype=torch.float32)


def cuts(*begins: int) -> list[Cut]:
    """Where A, B and K lie in a file."""
    shapes = [((2, 3), (3, 1)), ((4, 2), (2, 1)), ((2, 3), (3, 1))]
    return [(shape, strides, begin) for (shape, strides), begin in zip(shapes, begins, strict=True)]


def test_every_layer_has_zeros_of_its_own_in_every_slot() -> None:
    one = slab()
    for number, (place, room) in enumerate(ROOMS.items()):
        stacked = one.stacked(place)
        assert tuple(stacked.shape) == (3, 1, *room)
        assert not stacked.any()
        stacked[1] = number + 1
    for number, place in enumerate(ROOMS):
        assert (one.stacked(place)[1] == number + 1).all()
        assert not one.stacked(place)[[0, 2]].any()


def test_a_file_in_the_slots_order_is_one_run() -> None:
    assert slab().runs([A, B, K], cuts(5, 11, 19)) == (Run(source=5, target=0, count=20),)
    backwards = slab().runs([K, B, A], list(reversed(cuts(5, 11, 19))))
    assert backwards == (Run(source=5, target=0, count=20),), "the order in which tensors are named is no matter"


def test_what_lies_side_by_side_is_copied_at_once_and_the_rest_where_it_goes() -> None:
    one, numbers = slab(), torch.arange(26.0)
    runs = one.runs([A, B, K], cuts(6, 12, 0))
    assert runs == (Run(source=0, target=14, count=6), Run(source=6, target=0, count=14))
    for view, run in zip(one.views(2, runs), runs, strict=True):
        view.copy_(numbers[run.source : run.source + run.count])

    for (name, part, side), begin, count in ((("q", 0, "a"), 6, 6), (("q", 0, "b"), 12, 8), (("k", 0, "a"), 0, 6)):
        assert torch.equal(one.stacked((name, part, side))[2].flatten(), numbers[begin : begin + count])
    assert not any(one.stacked(place)[:2].any() for place in ROOMS)


def test_a_tensor_that_leaves_a_margin_beside_it_or_lies_in_stripes_has_no_runs() -> None:
    assert slab().runs([("q", 0, "b", 4, 1)], [((4, 1), (1, 1), 0)]) is None, "a lower rank"
    assert slab().runs([A], [((2, 3), (6, 1), 0)]) is None, "a device's share of the columns"
    assert slab().runs([A, ("q", 0, "b", 4, 1)], [((2, 3), (3, 1), 9), ((4, 1), (1, 1), 0)]) is None


def test_fewer_rows_leave_those_below_alone() -> None:
    assert slab().runs([("q", 0, "a", 1, 3)], [((1, 3), (3, 1), 7)]) == (Run(source=7, target=0, count=3),)
    assert slab().runs([("q", 0, "a", 0, 3)], [((0, 3), (3, 1), 0)]) == ()
