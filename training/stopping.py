"""When a training looks at its watched replies, and when it has seen enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

_LOOKING_SHARE = 0.1


@dataclass(kw_only=True)
class Watch:
    """The looks at the watched replies so far, as (step, loss in nats per token)."""

    patience: int
    looks: list[tuple[int, float]] = field(default_factory=list)

    @property
    def best_step(self) -> int | None:
        """The step with the lowest loss, the first of equals; None before the first look."""
        return min(self.looks, key=lambda look: (look[1], look[0]))[0] if self.looks else None

    @property
    def enough(self) -> bool:
        """Whether the last `patience` looks were all no better than the best before them."""
        best = self.best_step
        return best is not None and sum(step > best for step, _ in self.looks) >= self.patience

    def see(self, step: int, loss: float) -> bool:
        """Note a look and return whether it is the best so far."""
        self.looks.append((step, loss))
        return self.best_step == step


def affordable_looks(wanted: int, *, trained_tokens: int, watched_tokens: int) -> int:
    """Return how many of the `wanted` looks are taken: so few that looking takes at most a tenth of a training's time.

    A look reads its tokens forward only, a third of what training on them takes. One look alone has nothing to choose
    between, so 0 stands for it, unless no more was wanted.
    """
    affordable = min(wanted, int(_LOOKING_SHARE * 3 * trained_tokens / max(1, watched_tokens)))
    return affordable if affordable >= min(2, wanted) else 0


def look_steps(total: int, looks: int) -> Sequence[int]:
    """Return the steps after which to look: evenly spread, the last one among them."""
    return sorted({max(1, round(total * number / looks)) for number in range(1, looks + 1)}) if total else []
