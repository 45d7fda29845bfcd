"""Secrets and personal identifiers out of texts, before they leave the machine or enter a dataset."""

from __future__ import annotations

from transcripts.redaction.finding import Finding
from transcripts.redaction.redactor import Redacted, RedactedText, Redactor
from transcripts.redaction.settings import RedactionSettings

__all__ = ["Finding", "Redacted", "RedactedText", "RedactionSettings", "Redactor"]
