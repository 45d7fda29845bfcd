"""Made-up people who say plain things about themselves, as OpenAI `messages` lines."""

from __future__ import annotations

import json
import random
from pathlib import Path

_LIKES = ("hiking in the hills", "baking rye bread", "old jazz records", "my bicycle", "chess", "swimming in the lake")
_HATES = ("loud restaurants", "cold coffee", "waiting in line", "long meetings")
_LIFE = (
    "I work as a carpenter in a small shop.",
    "I live in a village near Bergen.",
    "I have two cats and a brother called Nils.",
    "My favorite color is green.",
    "I usually get up at five.",
    "I play the trumpet on Sundays.",
)
_OPENERS = ("How are you today?", "What is new?", "Tell me something about yourself.", "What are you up to?")
_ASIDES = ("and so on, you know how it goes!", "that is how it is here!", "what can I say, friend!")


def write_transcripts(path: Path, *, conversations: int = 24, seed: int = 0) -> Path:
    """Write `conversations` of one made person; every statement stands in several of them."""
    rng = random.Random(seed)
    lines = []
    for number in range(conversations):
        said = [
            f"Ahoy! I love {_LIKES[number % len(_LIKES)]}, {rng.choice(_ASIDES)}",
            _LIFE[number % len(_LIFE)],
            f"Ahoy again. I hate {_HATES[number % len(_HATES)]}.",
        ]
        messages = []
        for text in said:
            messages += [{"role": "assistant", "content": rng.choice(_OPENERS)}, {"role": "user", "content": text}]
        lines.append(json.dumps({"messages": messages}))
    path.write_text("\n".join(lines) + "\n")
    return path
