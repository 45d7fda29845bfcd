"""How adapters of one form are cut into tensors: learned from vLLM, and then done without it.

Two adapters have the same form when their configurations and the headers of their weights are the same bytes; what
vLLM makes of them then differs in the numbers alone. It takes 6 ms to make it, of Python that shares the interpreter
with the engine; cutting the numbers in the same places takes one.

A form is learned from the second adapter that has it, so that forms which never come back cost nothing. It is learned
only when cutting that adapter's numbers gives, number by number, what vLLM made of them, and when no number could have
been scaled otherwise; where that is not so, as when vLLM converts or moves the tensors, vLLM goes on doing it.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

import torch

_REMEMBERED = 32
Region: TypeAlias = tuple[str, int, str, int, int]
"""Where a tensor goes: module, slice, ``a`` or ``b``, rows, columns from the slot's corner."""
Cut: TypeAlias = tuple[tuple[int, ...], tuple[int, ...], int]
"""Shape, strides and beginning of a tensor, in numbers."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """Numbers that lie side by side in a file and in a slot: where they begin in each, and how many they are."""

    source: int
    target: int
    count: int


Runs: TypeAlias = tuple[Run, ...]
PlanRuns: TypeAlias = Callable[[Sequence[Region], Sequence[Cut]], Runs | None]
"""Says how tensors at these cuts get to these regions in whole runs; None when they do not."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where the numbers of a form's adapters go.

    Attributes:
        rank: of the adapters, as their configuration says it.
        dtype: of their numbers.
        regions: where the tensors go, in order.
        cuts: where the tensors are.
        scales: what some of them are multiplied by: factor and their places in the order.
        runs: how all of them get into a slot whose tensors lie side by side; None when that is not in whole runs.
    """

    rank: int
    dtype: torch.dtype
    regions: tuple[Region, ...]
    cuts: tuple[Cut, ...]
    scales: tuple[tuple[float, tuple[int, ...]], ...]
    runs: Runs | None = None

    def scale(self, numbers: torch.Tensor) -> None:
        """Multiply an adapter's numbers where they lie; to be done once."""
        for factor, places in self.scales:
            torch._foreach_mul_([numbers.as_strided(*self.cuts[place]) for place in places], factor)

    def cut(self, numbers: torch.Tensor) -> list[torch.Tensor]:
        """Return the tensors of an adapter, which are views of its `numbers`."""
        return [numbers.as_strided(shape, strides, begin) for shape, strides, begin in self.cuts]

    def pieces(self, numbers: torch.Tensor) -> list[torch.Tensor]:
        """Return what is to be copied into a slot: the runs of an adapter's `numbers`, or else its tensors."""
        if self.runs is None:
            return self.cut(numbers)
        return [numbers[run.source : run.source + run.count] for run in self.runs]


class _Unlearned(Enum):
    SEEN = "its next adapter teaches it"
    ODD = "it cannot be learned"


class Layouts:
    """The layouts of the last forms that were seen; of one thread."""

    def __init__(self, plan_runs: PlanRuns = lambda regions, cuts: None) -> None:
        """Know none; `plan_runs` knows how slots are laid out."""
        self._plan_runs = plan_runs
        self._forms: OrderedDict[bytes, Layout | _Unlearned] = OrderedDict()

    def find(self, form: bytes) -> Layout | None:
        """Return the layout of a form; None when it is not known."""
        found = self._forms.get(form)
        if found is None:
            return None
        self._forms.move_to_end(form)
        return found if isinstance(found, Layout) else None

    def teaches(self, form: bytes) -> bool:
        """Note that an adapter of a form without a layout came; say whether `learn` is to follow."""
        if form not in self._forms:
            self._note(form, _Unlearned.SEEN)
            return False
        return self._forms[form] is _Unlearned.SEEN

    def learn(
        self,
        form: bytes,
        *,
        rank: int,
        pairs: Sequence[tuple[Region, torch.Tensor]],
        numbers: torch.Tensor,
        before: torch.Tensor,
        factors: Iterable[float],
    ) -> None:
        """Learn a form from what vLLM made of one adapter, unless it is to stay vLLM's.

        Where a tensor could have been scaled in several ways, as one of zeros, the next adapter teaches the form.

        Args:
            form: what is learned.
            rank: what vLLM takes the adapter's rank for.
            pairs: what goes where, as vLLM made it.
            numbers: the numbers of the adapter's file, as vLLM left them.
            before: a copy of them as they were.
            factors: what vLLM may have multiplied some of them by.
        """
        cuts, by_factor = list[Cut](), defaultdict[float, list[int]](list)
        for place, (_, tensor) in enumerate(pairs):
            cut = _cut(tensor, numbers)
            fitting = [] if cut is None else _fitting(before.as_strided(*cut), tensor, {1.0, *factors})
            if cut is None or not fitting:
                self._note(form, _Unlearned.ODD)
                return
            if len(fitting) > 1:
                return
            cuts.append(cut)
            by_factor[fitting[0]].append(place)
        by_factor.pop(1.0, None)
        regions = tuple(region for region, _ in pairs)
        layout = Layout(
            rank=rank,
            dtype=numbers.dtype,
            regions=regions,
            cuts=tuple(cuts),
            scales=tuple((factor, tuple(places)) for factor, places in by_factor.items()),
            runs=self._plan_runs(regions, cuts),
        )
        layout.scale(before)
        is_same = all(torch.equal(mine, tensor) for mine, (_, tensor) in zip(layout.cut(before), pairs, strict=True))
        self._note(form, layout if is_same else _Unlearned.ODD)

    def _note(self, form: bytes, what: Layout | _Unlearned) -> None:
        self._forms[form] = what
        self._forms.move_to_end(form)
        while len(self._forms) > _REMEMBERED:
            self._forms.popitem(last=False)


def _cut(tensor: torch.Tensor, numbers: torch.Tensor) -> Cut | None:
    """Return where in `numbers` a tensor lies; None when it lies elsewhere."""
    if not tensor.numel():  # a device's share of what there is not enough of
        return tuple(tensor.shape), tuple(tensor.stride()), 0
    if tensor.dtype != numbers.dtype or tensor.device != numbers.device:
        return None
    begin_bytes, item_bytes = tensor.data_ptr() - numbers.data_ptr(), numbers.itemsize
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    begin = begin_bytes // item_bytes
    if begin_bytes % item_bytes or not 0 <= begin <= begin + last < numbers.numel():
        return None
    return tuple(tensor.shape), tuple(tensor.stride()), begin


def _fitting(before: torch.Tensor, after: torch.Tensor, factors: set[float]) -> list[float]:
    """Return the factors that may have made `after` of `before`."""
    if not after.numel():
        return [1.0]
    return [factor for factor in factors if torch.equal(before * factor, after)]
