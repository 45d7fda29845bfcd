"""The slots of a CPU engine, each in one piece: an adapter's tensors lie there as they lie in its file.

vLLM gives every layer tensors of its own, of all slots. So an adapter comes to 420 copies, and what each costs before
it has copied anything is a third of the time for which they keep the engine's thread. Here the layers' tensors are
views of one row a slot, in the order in which PEFT writes files, by name. An adapter of the largest rank that is served
then is one copy; of one whose file is in another order, as much is copied at once as lies side by side.

On a GPU vLLM's kernels want tensors that are contiguous, and such a copy does not keep the engine's thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import TypeAlias

import torch

from serving.engine.worker.layouts import Cut, Region, Run, Runs

Place: TypeAlias = tuple[str, int, str]
"""A tensor of a layer: module, slice, ``a`` or ``b``."""


class Slab:
    """A row of numbers for every slot."""

    def __init__(self, rooms: Mapping[Place, tuple[int, int]], *, slots: int, dtype: torch.dtype) -> None:
        """Make rows of zeros.

        Args:
            rooms: rows and columns of each layer's tensors, in the order in which they are to lie in a slot.
            slots: how many rows.
            dtype: of the numbers.
        """
        self._rooms: dict[Place, tuple[int, tuple[int, int]]] = {}
        end = 0
        for place, room in rooms.items():
            self._rooms[place] = end, room
            end += prod(room)
        self._rows = torch.zeros(slots, end, dtype=dtype)

    def stacked(self, place: Place) -> torch.Tensor:
        """Return a layer's tensor in all slots: (slots, 1, rows, columns)."""
        begin, (rows, columns) = self._rooms[place]
        return self._rows[:, begin : begin + rows * columns].view(-1, 1, rows, columns)

    def runs(self, regions: Sequence[Region], cuts: Sequence[Cut]) -> Runs | None:
        """Return how tensors at `cuts` of an adapter's numbers get to `regions` of a slot; None when not in whole runs.

        That is so when a tensor lies in stripes in either, as one of a lower rank than the largest that is served.
        """
        runs = list[Run]()
        pieces = [self._piece(region, cut) for region, cut in zip(regions, cuts, strict=True)]
        if None in pieces:
            return None
        for piece in sorted((piece for piece in pieces if piece and piece.count), key=lambda piece: piece.source):
            last = runs[-1] if runs else None
            if last and (last.source + last.count, last.target + last.count) == (piece.source, piece.target):
                runs[-1] = Run(source=last.source, target=last.target, count=last.count + piece.count)
            else:
                runs.append(piece)
        return tuple(runs)

    def views(self, slot: int, runs: Iterable[Run]) -> list[torch.Tensor]:
        """Return where runs go in a slot."""
        row = self._rows[slot]
        return [row[run.target : run.target + run.count] for run in runs]

    def _piece(self, region: Region, cut: Cut) -> Run | None:
        name, part, side, rows, columns = region
        shape, strides, begin = cut
        target, (_, room_columns) = self._rooms[name, part, side]
        if columns != room_columns or shape != (rows, columns) or strides != (columns, 1):
            return None
        return Run(source=begin, target=target, count=rows * columns)
