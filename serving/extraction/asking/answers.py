"""The answers in what an adapter wrote, also when it was cut."""

from __future__ import annotations

import json
import re

_STRING = re.compile(r'"((?:[^"\\]|\\.)*+)"?')


def parse_answers(text: str) -> list[str]:
    """Return the answers in a JSON string, or in ``{"answers": ["…"]}``, also when the text was cut.

    Of a string that was cut, the last word is left out, since it may be half a word. Any other JSON holds no
    answers.
    """
    try:
        value = json.loads(text)
    except ValueError:
        return _parse_cut(text)
    answers = value.get("answers") if isinstance(value, dict) else [value]
    found = answers if isinstance(answers, list) else []
    return [stripped for answer in found if isinstance(answer, str) and (stripped := answer.strip())]


def _parse_cut(text: str) -> list[str]:
    head, _, body = text.partition("[")
    if text.lstrip().startswith('"'):
        body = text
    elif '"answers"' not in head:
        return []
    found = []
    for match in _STRING.finditer(body):
        is_whole = match[0].endswith('"') and len(match[0]) > 1
        content = match[1] if is_whole else match[1].rpartition(" ")[0]
        if (answer := _unescaped(content)) is not None:
            found.append(answer)
    return found


def _unescaped(content: str) -> str | None:
    try:
        return str(json.loads(f'"{content}"', strict=False)).strip() or None
    except ValueError:
        return None
