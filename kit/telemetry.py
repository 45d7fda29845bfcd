"""Logs as JSON lines, without content: what happened, to which opaque id, how long it took."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

# These write the URLs that they call: users' names in paths, and signatures that open files.
_INDISCREET = ("aiohttp", "httpx", "httpx2", "httpcore", "httpcore2", "urllib3", "boto3", "botocore", "s3transfer")


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= getattr(record, "fields", {})  # what `extra={"fields": …}` gave
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure_logging(level: str = "info") -> None:
    """Send every logger of this process to standard error as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in _INDISCREET:
        logging.getLogger(name).setLevel(logging.WARNING)
