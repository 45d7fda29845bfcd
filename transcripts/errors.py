"""Everything that reading, keeping and searching transcripts can refuse to do.

TranscriptError                  500
├── TranscriptRefused            422
│   ├── TranscriptUnreadable     422
│   ├── TranscriptTruncated      422
│   ├── TranscriptEmpty          422
│   ├── NoUserTurn               422
│   ├── UnknownFormat            422
│   ├── UnknownSpeaker           422
│   └── TranscriptTooLarge       413
├── RedactionTooSlow             422
└── TranscriptNotFound           404
"""

from __future__ import annotations

from kit.errors import LorryError


class TranscriptError(LorryError):
    """The transcripts could not be read or kept."""


class TranscriptRefused(TranscriptError):
    """The input is not a transcript that Lorry can take; nothing was kept of it."""

    status_code = 422


class TranscriptUnreadable(TranscriptRefused):
    """The file is not what its format says it must be."""


class TranscriptTruncated(TranscriptRefused):
    """The file ends in the middle of a conversation."""


class TranscriptEmpty(TranscriptRefused):
    """The file holds nothing."""


class NoUserTurn(TranscriptRefused):
    """No turn is the user's, so there is nothing to learn about them."""


class UnknownFormat(TranscriptRefused):
    """That is not a transcript format that Lorry reads."""


class UnknownSpeaker(TranscriptRefused):
    """It is not known which of the speakers is the user."""


class TranscriptTooLarge(TranscriptRefused):
    """The transcript is larger than the limit."""

    status_code = 413


class RedactionTooSlow(TranscriptError):
    """A pattern for redaction takes too long; nothing is passed on unchecked."""

    status_code = 422


class TranscriptNotFound(TranscriptError):
    """There is no such transcript."""

    status_code = 404
