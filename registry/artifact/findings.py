"""What validation found: every problem by name, not only the first one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, Self

from pydantic import Field

from registry.errors import AdapterInvalid
from registry.manifest import Frozen, JsonObject

MAX_FINDINGS = 50
_FIELD_CHARACTERS = 400
_MESSAGE_CHARACTERS = 1000


class Finding(Frozen):
    """One thing that is wrong (`error`) or worth knowing (`warning`), and where it is."""

    code: str
    field: str | None = Field(default=None, max_length=_FIELD_CHARACTERS)
    message: str = Field(max_length=_MESSAGE_CHARACTERS)
    severity: Literal["error", "warning"] = "error"

    @classmethod
    def of(cls, error: AdapterInvalid, *, code: str) -> Self:
        """Return what an error says as a finding."""
        field = error.field[:_FIELD_CHARACTERS] if error.field else None
        return cls(code=code, field=field, message=error.message[:_MESSAGE_CHARACTERS])


class ValidationReport(Frozen):
    """What was checked of a version and what was found.

    `checks` names what ran, `scan` holds the outcome of an optional scanner; at most `MAX_FINDINGS` are kept, and
    `more_findings` says how many were not.
    """

    checks: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    more_findings: int = 0
    scan: JsonObject | None = None

    @classmethod
    def collect(cls, findings: Iterable[Finding], *, checks: Iterable[str], scan: dict[str, Any] | None = None) -> Self:
        """Keep the first findings, errors before warnings."""
        found = sorted(findings, key=lambda finding: finding.severity != "error")
        more = max(0, len(found) - MAX_FINDINGS)
        return cls(checks=tuple(checks), findings=tuple(found[:MAX_FINDINGS]), more_findings=more, scan=scan)

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What makes the adapter unservable."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    def require(self) -> None:
        """Refuse an adapter with errors.

        Raises:
            AdapterInvalid: with the first one as its message and all of them as its details.
        """
        if self.errors:
            first = self.errors[0]
            raise AdapterInvalid(
                first.message,
                field=first.field,
                findings=[finding.model_dump(mode="json") for finding in self.findings],
                more_findings=self.more_findings,
            )
