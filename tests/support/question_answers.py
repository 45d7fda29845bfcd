"""A model's good answer to a question writer's request: as many pairs as were asked for, each with a true quotation."""

from __future__ import annotations

import json
import re
from itertools import cycle, islice
from typing import Any


def good_answer(shown: str, task: str) -> str:
    """Return the JSON that a model should give for the turns in `shown` and the `task`."""
    wanted = int(re.search(r"Write (\d+) pairs", task)[1])  # type: ignore[index]
    closed = "yes or no" in task
    turns = [json.loads(line) for line in shown.splitlines() if line.startswith('{"turn"')]
    theirs = [turn for turn in turns if turn["speaker"] == "person"]
    pairs = [_pair(turn, number, closed=closed) for number, turn in enumerate(islice(cycle(theirs), wanted))]
    return json.dumps({"pairs": pairs})


def _pair(turn: dict[str, Any], number: int, *, closed: bool) -> dict[str, Any]:
    text = " ".join(turn["text"].split()[:20])
    if not closed:
        verdict, answer, supported = "none", text, True
    elif number % 2 == 0:
        verdict, answer, supported = "yes", f"Yes. {text}", True
    else:
        verdict, answer, supported = "no", "No, I never said that.", False
    return {
        "question": f"Question {number} about {text}?",
        "answer": answer,
        "verdict": verdict,
        "topic": "interests",
        "supported": supported,
        "turn": turn["turn"] if supported else None,
        "quote": text if supported else None,
    }
