"""What was used."""

from __future__ import annotations

from datetime import date

from lorry.client.results.result import Result


class Usage(Result):
    """What one user's adapter was asked on one day; `user_id` None = all of the tenant's."""

    day: date
    user_id: str | None
    requests: int
    prompt_tokens: int
    completion_tokens: int
