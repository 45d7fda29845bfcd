"""How many tokens a text has: by the base's own tokenizer where its files are at hand, else by an estimate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

CountTokens = Callable[[str], int]

_BYTES_PER_TOKEN = 3
TOKENIZER_FILE = "tokenizer.json"


def estimate_tokens(text: str) -> int:
    """Return a third of the text's UTF-8 bytes, rounded up.

    English has about four bytes a token with the tokenizers of current models, and few languages have less than
    three, so what fits by this estimate nearly always fits in earnest.
    """
    return -(-len(text.encode()) // _BYTES_PER_TOKEN)


def token_counter(base_directory: Path | None) -> CountTokens:
    """Return how a base counts; the estimate when its tokenizer, or the library that reads it, is not here."""
    path = base_directory / TOKENIZER_FILE if base_directory is not None else None
    if path is None or not path.is_file():
        return estimate_tokens
    try:
        from tokenizers import Tokenizer  # comes with training and with the engine, not with the gateway
    except ImportError:
        return estimate_tokens
    tokenizer = Tokenizer.from_file(str(path))
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)
