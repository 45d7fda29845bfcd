"""The teacher of context distillation: the same base, shown the user's transcripts in its prompt.

Nothing outside this machine is asked. What the teacher would say at every token of an answer is written down once,
before training; the student learns to say it without the transcripts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from training.examples import Example
from training.loss import collate, label_states, projection
from training.objectives.divergence import TokenDistributions
from training.tokens import TokenisedExample, tokenise, tokenise_with_context
from transcripts.transcript import Transcript

_BATCH_TOKENS = 2048
_SAID_BEFORE = "These are earlier conversations of the person you are. Answer as they would, from what they said."
_SPEAKERS = {"user": "You", "other": "Someone"}


class Teacher:
    """The base without its adapter, asked for distributions over the vocabulary."""

    def __init__(
        self, model: Any, *, pad_token_id: int, bare: Callable[[], AbstractContextManager[Any]] = nullcontext
    ) -> None:
        """Ask `model`; inside `bare()`, it has no adapter."""
        self._model, self._pad_token_id, self._bare = model, pad_token_id, bare

    def distributions(
        self, rows: Sequence[TokenisedExample], *, k: int, checkpoint: Callable[[], None] = lambda: None
    ) -> list[TokenDistributions]:
        """Return what the model expects at each completion token of each row; `k` as in `TokenDistributions`.

        `checkpoint` is called between batches; what it raises ends the work.
        """
        found: dict[int, TokenDistributions] = {}
        for batch in batches_of_similar_length([len(row.input_ids) for row in rows], max_tokens=_BATCH_TOKENS):
            checkpoint()
            tensors = collate([rows[index] for index in batch], pad_token_id=self._pad_token_id)
            tensors = {key: tensor.to(self._model.device) for key, tensor in tensors.items()}
            with self._bare(), torch.no_grad():
                states = label_states(self._model, tensors)
                project = projection(self._model)
                for number, index in enumerate(batch):
                    found[index] = TokenDistributions.of_logits(project(states.hidden[states.rows == number]), k=k)
        return [found[index] for index in range(len(rows))]


def shown_to_teacher(
    examples: Sequence[Example],
    transcripts: Mapping[str, Transcript],
    tokenizer: Any,
    *,
    max_length: int,
    context_tokens: int,
) -> list[TokenisedExample]:
    """Return each example as the teacher sees it: below conversations of at most `context_tokens` tokens.

    An example's own conversation comes first, then those with most of the user's words. Its completion's tokens are
    the student's, so that the two can be compared token by token.
    """
    by_words = sorted(transcripts, key=lambda name: (-_words(transcripts[name]), name))
    rows = []
    for example in examples:
        student = tokenise(example, tokenizer, max_length=max_length)
        assert student is not None, "only examples that fit are taught"
        own = [name for name in (example.transcript_id,) if name in transcripts]
        order = [*own, *(name for name in by_words if name not in own)]
        context = _write([transcripts[name] for name in order], tokenizer, limit=context_tokens)
        rows.append(tokenise_with_context(example, f"{_SAID_BEFORE}\n\n{context}", tokenizer, student=student))
    return rows


def batches_of_similar_length(lengths: Sequence[int], *, max_tokens: int) -> list[list[int]]:
    """Return indices, shortest rows first, at most `max_tokens` padded tokens a batch unless a row alone is longer."""
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: (lengths[index], index)):
        if batches and (len(batches[-1]) + 1) * lengths[index] <= max_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def _write(transcripts: Sequence[Transcript], tokenizer: Any, *, limit: int) -> str:
    """Write conversations as lines until `limit` tokens are reached; turns are left out whole."""
    lines: list[str] = []
    left = limit
    for transcript in transcripts:
        for turn in transcript.turns:
            line = f"{_SPEAKERS[turn.role]}: {turn.text}"
            left -= len(tokenizer(line, add_special_tokens=False)["input_ids"]) + 1
            if left < 0:
                return "\n".join(lines)
            lines.append(line)
        lines.append("")
    return "\n".join(lines)


def _words(transcript: Transcript) -> int:
    return sum(len(turn.text.split()) for turn in transcript.user_turns)
