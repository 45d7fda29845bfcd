"""Reading a bulk upload: a transcript a line, each judged by itself."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import ValidationError

from kit.beside import parse_json
from kit.json_guard import objection
from kit.reasons import describe
from serving.gateway.transcripts.schemas import RefusedLine, TranscriptLine
from transcripts.conversation import unfit

Read = tuple[int, TranscriptLine | RefusedLine]


def read_lines(body: bytes) -> Iterator[Read]:
    """Yield each line's number, from 1, and what it holds or why it is refused; empty lines are nothing."""
    for number, line in enumerate(body.splitlines(), start=1):
        if line.strip():
            yield number, _read_line(number, line)


def _read_line(number: int, line: bytes) -> TranscriptLine | RefusedLine:
    refused = objection(line)
    if refused is not None:
        return RefusedLine(line=number, field=refused[0].removeprefix("body.") or "line", reason=refused[1])
    try:
        value = parse_json(line)
    except ValueError as exc:
        return RefusedLine(line=number, field="line", reason=f"is not JSON: {exc}")
    try:
        read = TranscriptLine.model_validate(value)
    except ValidationError as exc:
        field, reason = describe(exc.errors(include_url=False, include_input=False)[0])
        return RefusedLine(line=number, field=field or "line", reason=reason)
    problem = refusal_of(read)
    return read if problem is None else RefusedLine(line=number, field=problem[0], reason=problem[1])


def refusal_of(read: TranscriptLine) -> tuple[str, str] | None:
    """Return (field, reason) of what the store would refuse; None when it takes the transcript."""
    if not any(turn.role == "user" for turn in read.turns):
        return "turns", "has no turn of the user's"
    if (reason := unfit(read.title)) is not None:
        return "title", reason
    for index, turn in enumerate(read.turns):
        if (reason := unfit(turn.text)) is not None:
            return f"turns.{index}.text", reason
    return None
