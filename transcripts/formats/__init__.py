"""The transcript formats that Lorry reads: add one by writing its file and naming it in `FORMATS`."""

from __future__ import annotations

from transcripts.errors import UnknownFormat
from transcripts.formats.base import TranscriptFormat
from transcripts.formats.chatgpt import ChatGPT
from transcripts.formats.chitchat import Chitchat
from transcripts.formats.claude_ai import ClaudeAI
from transcripts.formats.claude_code import ClaudeCode
from transcripts.formats.openai_messages import OpenAIMessages
from transcripts.formats.plain_text import PlainText
from transcripts.formats.sharegpt import ShareGPT

__all__ = ["FORMATS", "TranscriptFormat", "require_format"]

_ALL: tuple[TranscriptFormat, ...] = (
    *(ClaudeCode(), ClaudeAI(), ChatGPT()),
    *(OpenAIMessages(), ShareGPT(), PlainText(), Chitchat()),
)
FORMATS: dict[str, TranscriptFormat] = {format.name: format for format in _ALL}


def require_format(name: str) -> TranscriptFormat:
    """Return the format of that name; ``_`` reads as ``-``.

    Raises:
        UnknownFormat: listing the names there are.
    """
    if (found := FORMATS.get(name.replace("_", "-"))) is None:
        raise UnknownFormat(f"{name!r} is no transcript format; choose one of {', '.join(FORMATS)}", field="format")
    return found
