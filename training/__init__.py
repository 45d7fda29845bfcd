"""Transcripts to adapter: dataset, QLoRA training, evaluation, publishing."""

from __future__ import annotations

import logging

# It warns at import that an optional kernel, which would round to bfloat16, is not installed.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
