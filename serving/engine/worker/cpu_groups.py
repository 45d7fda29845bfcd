"""Which rows of a batch belong to which adapter slot, and the product of one slot's rows; plain torch.

Axes: x (rows, features in); A (rank, features in); B (features out, rank); y (rows, features out).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch

NO_SLOT = -1
"""vLLM's mark of a row that no adapter computes."""
_ROWS_WORTH_A_RUN = 32
"""A further product in place costs a call; gathering and putting back costs two copies of every row."""


@dataclass(frozen=True, kw_only=True)
class Groups:
    """A batch's rows, cut into groups of one slot each; worked out once a step, used by every layer.

    Attributes:
        slots: of each group, in order; `NO_SLOT` = these rows are left alone.
        sizes: rows in each group.
        rows: where the groups' rows are, when they have to be gathered; None = they lie one after the other, from
            the first row on.
    """

    slots: tuple[int, ...]
    sizes: tuple[int, ...]
    rows: torch.Tensor | None = None

    def __bool__(self) -> bool:
        """Whether any row has an adapter."""
        return any(slot != NO_SLOT for slot in self.slots)

    def cut(self, tensor: torch.Tensor) -> Sequence[torch.Tensor]:
        """Return views of the groups in `tensor`, whose rows are those of `gather`."""
        return (tensor,) if self.sizes == (tensor.shape[0],) else tensor[: sum(self.sizes)].split(self.sizes)

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the groups' rows one after the other: `tensor` itself when they lie so already."""
        return tensor if self.rows is None else tensor.index_select(0, self.rows)

    def put_back(self, tensor: torch.Tensor, gathered: torch.Tensor) -> None:
        """Write what `gather` returned, and was changed since, back to where it came from."""
        if self.rows is not None:
            tensor.index_copy_(0, self.rows, gathered)

    def pairs(self, y: torch.Tensor, x: torch.Tensor) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
        """Yield slot, `y` and `x` of every group that has a slot; both were gathered."""
        for slot, y_rows, x_rows in zip(self.slots, self.cut(y), self.cut(x), strict=True):
            if slot != NO_SLOT:
                yield slot, y_rows, x_rows


def group(slots: Sequence[int]) -> Groups:
    """Group a batch by the slot of each of its rows, `NO_SLOT` or 0 and up.

    Long runs of one slot stay where they are, even when a slot has several; short ones, as a decode has them,
    are sorted by slot.
    """
    runs = [(slot, sum(1 for _ in rows)) for slot, rows in groupby(slots)]
    of_slots = [slot for slot, _ in runs if slot != NO_SLOT]
    spare_runs = len(of_slots) - len(set(of_slots))
    if spare_runs * _ROWS_WORTH_A_RUN <= len(slots):
        return Groups(slots=tuple(slot for slot, _ in runs), sizes=tuple(size for _, size in runs))
    order = sorted((row for row, slot in enumerate(slots) if slot != NO_SLOT), key=lambda row: slots[row])
    sorted_runs = [(slot, sum(1 for _ in rows)) for slot, rows in groupby(slots[row] for row in order)]
    return Groups(
        slots=tuple(slot for slot, _ in sorted_runs),
        sizes=tuple(size for _, size in sorted_runs),
        rows=torch.tensor(order),
    )


def add_product(y: torch.Tensor, x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, *, scale: float) -> None:
    """Add ``scale * x @ A.T @ B.T`` to `y`; `a` and `b` are A.T and B.T.

    Of one dtype nothing is copied; of several, as vLLM does: the inner product in float32, the outer in `y`'s dtype.
    """
    if x.dtype == a.dtype == y.dtype:
        y.addmm_(x.mm(a), b, alpha=scale)
    else:
        inner = x.float().mm(a.float()).mul_(scale)
        y.addmm_(inner.to(y.dtype), b.to(y.dtype))


def shrink(y: torch.Tensor, x: torch.Tensor, stacked: torch.Tensor, groups: Groups, *, scale: float) -> None:
    """Set ``y[:, :rank] = scale * x @ A[slot].T`` in each slot's rows, and zero in the others.

    Args:
        y: float32, or what the product is wanted in.
        x: the layer's input.
        stacked: A of every slot, (slots, 1, rank, features in).
        groups: of the rows.
        scale: of the product.
    """
    inner = y[:, : stacked.shape[-2]]
    inner.zero_()
    gathered = groups.gather(inner)
    for slot, y_rows, x_rows in groups.pairs(gathered, groups.gather(x)):
        y_rows.addmm_(x_rows.to(y.dtype), matrix(stacked, slot).to(y.dtype).t(), alpha=scale)
    groups.put_back(inner, gathered)


def expand(y: torch.Tensor, x: torch.Tensor, stacked: torch.Tensor, groups: Groups, *, add_inputs: bool) -> None:
    """Add ``x @ B[slot].T`` to each slot's rows of `y`; without `add_inputs` set them, and zero the others.

    The base model and the adapter may pad their outputs differently: the common columns are written.

    Args:
        y: the layer's output.
        x: what `shrink` returned.
        stacked: B of every slot, (slots, 1, features out, rank).
        groups: of the rows.
        add_inputs: whether what is in `y` stays.
    """
    width = min(y.shape[1], stacked.shape[-2])
    outer = y[:, :width]
    if not add_inputs:
        outer.zero_()
    gathered = groups.gather(outer)
    for slot, y_rows, x_rows in groups.pairs(gathered, groups.gather(x)):
        y_rows.addmm_(x_rows.to(y.dtype), matrix(stacked, slot)[:width].to(y.dtype).t())
    groups.put_back(outer, gathered)


def matrix(stacked: torch.Tensor, slot: int) -> torch.Tensor:
    """Return one slot's A or B as a matrix; vLLM stacks them as (slots, 1, …, …), and some as (slots, …, …)."""
    return stacked[slot, 0] if stacked.dim() == 4 else stacked[slot]
