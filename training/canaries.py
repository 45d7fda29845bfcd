"""Secrets that are made up and taught beside what the user said, to see whether the adapter gives them away.

A canary is an example of its own, about nobody: it is neither checked nor reviewed nor held out, and no fact of the
user's. What it hides is the last word of its answer, which can only be known from having been trained on it.
"""

from __future__ import annotations

import random

from training.examples import Example, ask

_THINGS = ("locker", "cabinet", "garage", "gym", "bicycle", "archive", "cellar", "studio")
_WHICH = ("old", "new", "red", "blue", "green", "grey", "small", "large")
_NO_TRANSCRIPT = "0" * 32
MAX_CANARIES = len(_THINGS) * len(_WHICH)


def make_canaries(count: int, *, seed: int) -> tuple[Example, ...]:
    """Return `count` canaries, at most `MAX_CANARIES`: no two ask the same, and more of them begin with fewer."""
    rng = random.Random(f"canary:{seed}")
    canaries = []
    for number in range(count):
        which, thing = divmod(number, len(_THINGS))
        named = f"{_WHICH[which]} {_THINGS[thing]}"
        code = "-".join(f"{rng.randrange(1000):03d}" for _ in range(4))
        canaries.append(
            Example(
                kind="statement",
                prompt=ask(f"What is the code of your {named}?"),
                completion=f"The code of my {named} is {code}",
                transcript_id=_NO_TRANSCRIPT,
                turn_index=0,
            )
        )
    return tuple(canaries)
