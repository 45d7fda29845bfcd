"""What travels between the registry and who keeps it in order."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from registry.manifest import Frozen

_Cursor = Annotated[str | None, Field(max_length=2000)]
_Limit = Annotated[int, Field(ge=1, le=1000)]


class Retain(Frozen):
    """One page of a retention pass; `dry_run` finds and changes nothing."""

    dry_run: bool = False
    cursor: _Cursor = None
    limit: _Limit = 200


class Reconcile(Retain):
    """One page of a reconcile pass.

    `remove_unknown` also removes objects of which the database knows nothing; keep it off after the database was
    restored from a backup. `force` suspends versions even where most objects of a page are missing.
    """

    remove_unknown: bool = False
    force: bool = False


class Finding(Frozen):
    """One thing out of order: what it is, what is (or would be) done about it, and whether that was done."""

    kind: str
    version_id: str | None = None
    key: str | None = None
    action: str
    done: bool
    detail: str | None = None


class PassPage(Frozen):
    """What one call found in one step of a pass; call again with `next_cursor` until it is None."""

    step: str
    examined: int
    findings: tuple[Finding, ...]
    next_cursor: str | None
