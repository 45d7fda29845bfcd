"""Requests that are ended or refused on purpose are logged once, by us, and not by vLLM as if something had failed.

Once an answer streams, vLLM writes a traceback for whatever ends it early. The seam is watched by a contract test.
"""

from __future__ import annotations

import logging

from serving.engine.resolver import Refused

STREAMING = ("vllm.entrypoints.openai.chat_completion.serving", "vllm.entrypoints.openai.completion.serving")


class _NotOurs(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], Refused))


def leave_out_refusals() -> None:
    """Keep vLLM from logging our refusals; calling it again changes nothing."""
    for name in STREAMING:
        logger = logging.getLogger(name)
        if not any(isinstance(each, _NotOurs) for each in logger.filters):
            logger.addFilter(_NotOurs())
