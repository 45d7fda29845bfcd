"""What is looked for: each detector can be switched off, names and patterns of one's own can be added."""

from __future__ import annotations

from typing import Annotated, Any

import regex
from phonenumbers import SUPPORTED_REGIONS
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from kit.canonical import sha256_json

_MAX_PATTERN_CHARACTERS = 1000
KINDS = ("secret", "email", "phone", "iban", "card", "ssn", "ip", "name")


def _kind(value: str) -> str:
    if value in KINDS:
        raise ValueError("is a kind of its own; choose another name")
    return value


def _pattern(value: str) -> str:
    try:
        found = regex.compile(value)
    except regex.error as exc:
        raise ValueError(f"is not a regular expression: {exc}") from exc
    if found.search("", timeout=1.0) is not None:
        raise ValueError("matches the empty text")
    return value


def _region(value: str) -> str:
    if value not in SUPPORTED_REGIONS:
        raise ValueError("is no region with telephone numbers, such as US or DE")
    return value


Kind = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,31}$"), AfterValidator(_kind)]
Pattern = Annotated[str, StringConstraints(min_length=1, max_length=_MAX_PATTERN_CHARACTERS), AfterValidator(_pattern)]
Region = Annotated[str, AfterValidator(_region)]
PersonName = Annotated[str, StringConstraints(strip_whitespace=True, min_length=2, max_length=100)]


class RedactionSettings(BaseModel):
    """Which detectors run. All of them do, unless switched off."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    secrets: bool = Field(True, description="keys, tokens and passwords: the plugins of detect-secrets and our own")
    skip_plugins: frozenset[str] = Field(frozenset(), description="plugins of detect-secrets that are not asked")
    email: bool = Field(True, description="e-mail addresses")
    phone: bool = Field(True, description="telephone numbers that can exist")
    phone_regions: tuple[Region, ...] = Field(
        ("US", "GB"), description="where a number without its country's code may be from, such as US"
    )
    iban: bool = Field(True, description="bank accounts with a right check sum")
    card: bool = Field(True, description="payment cards with a right check digit")
    ssn: bool = Field(True, description="social security numbers of the United States")
    ip: bool = Field(True, description="public IPv4 and IPv6 addresses")
    names: tuple[PersonName, ...] = Field((), description="names to hide, in any case, as whole words")
    patterns: dict[Kind, Pattern] = Field(
        default_factory=dict, description="further kinds: name to regular expression, whose whole match is hidden"
    )

    def record(self) -> dict[str, Any]:
        """Return what a dataset's lineage keeps: the switches as they are, of names and patterns only the digest."""
        own = sha256_json({"names": sorted(self.names), "patterns": self.patterns})
        switches = self.model_dump(mode="json", exclude={"names", "patterns", "skip_plugins"})
        return {
            **switches,
            "skip_plugins": sorted(self.skip_plugins),
            "names": len(self.names),
            "patterns": sorted(self.patterns),
            "own_digest": own,
        }
