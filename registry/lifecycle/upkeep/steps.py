"""A pass in steps, page by page: where a call goes on, and where the next one will."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from registry.catalog.cursor import read_cursor, write_cursor
from registry.errors import InvalidReference
from registry.lifecycle.upkeep.schemas import Finding, PassPage, Retain

_R = TypeVar("_R", bound=Retain)


@dataclass(frozen=True, kw_only=True)
class StepPage:
    """What one step found among `examined` things; `after` None = the step has seen everything."""

    findings: list[Finding]
    examined: int
    after: str | None


@dataclass(frozen=True, kw_only=True)
class At(Generic[_R]):
    """Where in a step a call begins ("" = at its start), what was asked for, and by whom."""

    after: str
    request: _R
    actor: str


Step = Callable[[At[_R]], Awaitable[StepPage]]


async def run_page(steps: Mapping[str, Step[_R]], request: _R, *, name: str, actor: str) -> PassPage:
    """Run the page of a pass that the request's cursor names.

    Raises:
        InvalidReference: for a cursor that no earlier page of this pass gave.
    """
    order = list(steps)
    step, after = read_cursor(request.cursor, name, str, str) or (order[0], "")
    if step not in steps:
        raise InvalidReference("that cursor was not given by an earlier page of this pass", field="cursor")
    page = await steps[step](At(after=after, request=request, actor=actor))
    if page.after is not None:
        following: tuple[str, str] | None = (step, page.after)
    else:
        following = next(((later, "") for later in order[order.index(step) + 1 :]), None)
    more = write_cursor(name, *following) if following else None
    return PassPage(step=step, examined=page.examined, findings=tuple(page.findings), next_cursor=more)
