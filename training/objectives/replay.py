"""General questions and answers, on which the adapter is held to what the base would say.

They are not taught: the loss on them is the divergence from the base's own distribution, which is nothing at all for
an adapter that leaves general answers alone. The pairs are Lorry's own, and the general ability that an evaluation
measures is measured on others.
"""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path

from training.examples import Example, ask

_FILE = Path(__file__).with_name("replay.jsonl")


@cache
def replay_examples() -> tuple[Example, ...]:
    """Return the fixed general pairs, in order."""
    pairs = [json.loads(line) for line in _FILE.read_text(encoding="utf-8").splitlines()]
    return tuple(
        Example(
            kind="reply", prompt=ask(pair["question"]), completion=pair["answer"], transcript_id="", turn_index=number
        )
        for number, pair in enumerate(pairs)
    )


def plan_replay(sizes: list[int], *, available: int, share: float, seed: int) -> list[list[int]]:
    """Return the indices of each step's general examples: `share` for each of the step's `sizes` examples.

    Fractions add up over steps; every one is shown once before any is shown again.
    """
    rng = random.Random(f"replay:{seed}")
    plan, waiting, owed = [], list[int](), 0.0
    for size in sizes:
        owed += share * size if available else 0.0
        chosen = []
        while owed >= 1:
            if not waiting:
                waiting = rng.sample(range(available), available)
            chosen.append(waiting.pop())
            owed -= 1
        plan.append(chosen)
    return plan
