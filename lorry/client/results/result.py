"""What every result is: a value that cannot change, and that leaves out what it does not know."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Result(BaseModel):
    """Something that the API said."""

    model_config = ConfigDict(frozen=True, extra="ignore")
