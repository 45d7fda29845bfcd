"""Which of the written examples a dataset keeps: no duplicates, no leaks, balanced by kind, in a seeded order."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence
from itertools import zip_longest

from kit.canonical import sha256_json
from training.config import DatasetConfig
from training.examples import Example, Kind

_LEAK_WORDS = 4


def choose_held_out(replies: Sequence[Example], *, config: DatasetConfig) -> list[Example]:
    """Return at most `max_held_out` distinct replies, chosen by the seed, in their own order.

    Replies of a word or two say little about anybody and are taken only when there are no others.
    """
    distinct = _distinct(replies)
    telling = [example for example in distinct if len(example.completion.split()) >= _LEAK_WORDS]
    brief = [example for example in distinct if len(example.completion.split()) < _LEAK_WORDS]
    chosen = _sample(telling, config.max_held_out, config.seed)
    if len(chosen) < config.min_held_out:
        chosen += _sample(brief, config.min_held_out - len(chosen), config.seed)
    return [example for example in distinct if example in set(chosen)]


def choose_training(
    examples: Sequence[Example], held_out: Sequence[Example], *, config: DatasetConfig
) -> list[Example]:
    """Return at most `max_examples` distinct examples, none of whose answers is held out.

    Statements and negatives come first, up to their shares; replies fill up; what room is left goes to further
    statements.
    """
    leaked = {_text(example) for example in held_out}
    pool = [
        example
        for example in _distinct(examples)
        if example.kind == "negative" or len(_text(example).split()) < _LEAK_WORDS or _text(example) not in leaked
    ]
    by_kind = {
        kind: [example for example in pool if example.kind == kind] for kind in ("statement", "negative", "reply")
    }
    room = config.max_examples
    negatives = _sample(by_kind["negative"], round(config.negative_share * room), config.seed)
    statements = _spread(by_kind["statement"], round(config.statement_share * room), config.seed)
    replies = _sample(by_kind["reply"], room - len(negatives) - len(statements), config.seed)
    spare = room - len(negatives) - len(statements) - len(replies)
    taken = set(statements)
    more = _spread([example for example in by_kind["statement"] if example not in taken], max(0, spare), config.seed)
    chosen = statements + negatives + replies + more
    random.Random(f"order:{config.seed}").shuffle(chosen)
    return chosen[:room]


def choose_watched(
    examples: Sequence[Example], *, share: float, at_least: int, seed: int
) -> tuple[list[int], list[int]]:
    """Return the indices of what is trained on and of the replies that are watched meanwhile.

    Whole conversations' replies are watched, in the order of a digest of `seed` and the conversation, until there are
    `share` of all replies; conversations that would make it more than twice as many are passed over, since whoever has
    few long ones needs them for training. Nothing that repeats a watched one is trained on. None is watched when fewer
    than `at_least` would be.
    """
    replies = [index for index, example in enumerate(examples) if example.kind == "reply"]
    wanted = share * len(replies)
    if wanted < at_least:
        return list(range(len(examples))), []
    ranked = sorted({examples[index].transcript_id for index in replies}, key=lambda name: sha256_json([seed, name]))
    watched: list[int] = []
    for transcript_id in ranked[:-1]:
        if len(watched) >= wanted:
            break
        own = [index for index in replies if examples[index].transcript_id == transcript_id]
        if len(watched) + len(own) <= 2 * wanted:
            watched += own
    texts = {_text(examples[index]) for index in watched}
    turns = {(examples[index].transcript_id, examples[index].turn_index) for index in watched}
    trained = [
        index
        for index, example in enumerate(examples)
        if (example.transcript_id, example.turn_index) not in turns or example.kind == "negative"
        if example.kind == "negative" or len(_text(example).split()) < _LEAK_WORDS or _text(example) not in texts
    ]
    trained = [index for index in trained if index not in set(watched)]
    if len(watched) < at_least or not trained:
        return list(range(len(examples))), []
    return trained, sorted(watched)


def _spread(statements: Sequence[Example], count: int, seed: int) -> list[Example]:
    """Choose sentences topic after topic in turn, each with all its questions, until `count` examples are chosen.

    Somebody who says fifty times what they love and once what they do for a living is asked for both; a sentence that
    is asked for in several wordings is remembered for wordings that were never trained.
    """
    rng = random.Random(f"statements:{seed}")
    by_sentence: dict[tuple[str, int, str], list[Example]] = {}
    for example in statements:
        by_sentence.setdefault((example.transcript_id, example.turn_index, _sentence(example)), []).append(example)
    by_topic: dict[str | None, list[list[Example]]] = {}
    for group in rng.sample(list(by_sentence.values()), len(by_sentence)):
        by_topic.setdefault(group[0].topic, []).append(group)
    in_turn = [group for groups in zip_longest(*by_topic.values()) for group in groups if group is not None]
    return [example for group in in_turn for example in group][: max(0, count)]


def _sentence(example: Example) -> str:
    """The user's sentence, without the yes or no that a closed question puts before it."""
    return _text(example).removeprefix("yes ").removeprefix("no ")


def _sample(examples: Sequence[Example], count: int, seed: int) -> list[Example]:
    kind: Kind | None = examples[0].kind if examples else None
    count = max(0, min(count, len(examples)))
    return random.Random(f"{kind}:{seed}").sample(list(examples), count)


def _distinct(examples: Iterable[Example]) -> list[Example]:
    """The first of each (prompt, completion), in order."""
    return list({(example.prompt, example.completion): example for example in reversed(list(examples))}.values())[::-1]


def _text(example: Example) -> str:
    return " ".join(re.findall(r"\w+", example.completion.lower()))
