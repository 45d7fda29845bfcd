"""What is spent without a job, by a command: in the same table, under ids that are no job's."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import ClassVar

BILL = "f"  # a job's id begins with another letter
"""What the id of every bill begins with."""


@dataclass(frozen=True, kw_only=True)
class Bill:
    """Takes a job's place in a cost; a new one has an id of its own, and but one run."""

    run: ClassVar[int] = 1
    tenant: str
    user: str
    job_id: str = field(default_factory=lambda: f"{BILL}{uuid.uuid4().hex}")
