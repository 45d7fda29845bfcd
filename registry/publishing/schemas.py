"""What travels between the registry and a publisher or an installer, besides drafts and manifests."""

from __future__ import annotations

import base64
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Base64Bytes, Field

from kit.canonical import sha256_bytes
from registry.artifact.findings import ValidationReport
from registry.errors import BaseModelUnreadable
from registry.manifest import (
    BaseIdentity,
    BaseShape,
    Frozen,
    JsonObject,
    Manifest,
    RegisteredBase,
    Sha256,
    VersionId,
)

Key = Annotated[Base64Bytes, Field(repr=False, description="32 bytes, base64; a secret")]
MAX_PARTS_AT_ONCE = 100
_MAX_CONFIG_CHARACTERS = 1 << 20


class BaseRegistration(BaseIdentity):
    """A base model and its ``config.json``, word for word: its digest is checked and its sizes are read from it."""

    config: str | None = Field(
        default=None,
        max_length=_MAX_CONFIG_CHARACTERS,
        description="the text of config.json; without it nothing can be published for this base",
    )

    def registered(self) -> RegisteredBase:
        """Return what is to be remembered.

        Raises:
            BaseModelUnreadable: when the configuration is not the declared one, or does not tell the model's sizes.
        """
        identity = self.model_dump(exclude={"config"})
        if self.config is None:
            return RegisteredBase.model_validate(identity)
        if sha256_bytes(self.config.encode()) != self.config_sha256:
            raise BaseModelUnreadable("config does not have the declared config_sha256", field="config")
        return RegisteredBase.model_validate({**identity, "shape": BaseShape.parse(self.config)})


class Preference(StrEnum):
    """How a publisher would like to upload: sealed by itself, or in the open, for the registry to seal."""

    SEALED = "sealed"
    OPEN = "open"


class SealedUpload(Frozen):
    """One PUT of the version's files, one after another in the manifest's order, sealed with `content_key`.

    The URL takes an object once: whatever is there already stays, and is what `complete` judges (412).
    """

    kind: Literal["sealed"] = "sealed"
    url: str = Field(repr=False)
    headers: dict[str, str]
    content_key: Key


class OpenUpload(Frozen):
    """One PUT of exactly the declared weights."""

    kind: Literal["open"] = "open"
    url: str = Field(repr=False)
    headers: dict[str, str]


class PartsUpload(Frozen):
    """The weights in parts of `part_bytes`, counted from 1, the last one shorter; `arrived` need not be sent again."""

    kind: Literal["parts"] = "parts"
    part_bytes: int
    arrived: tuple[int, ...]


Upload = Annotated[SealedUpload | OpenUpload | PartsUpload, Field(discriminator="kind")]


class Publication(Frozen):
    """Where a publish stands; there is nothing to `upload` once the version is ready."""

    version_id: VersionId
    state: str
    manifest: Manifest
    upload: Upload | None


class PartDigest(Frozen):
    """One part that is about to be sent."""

    number: int = Field(ge=1, le=10_000)
    sha256: Sha256


class PartsWanted(Frozen):
    """Parts for which URLs are asked."""

    parts: tuple[PartDigest, ...] = Field(min_length=1, max_length=MAX_PARTS_AT_ONCE)


class SignedPart(Frozen):
    """A URL that takes one PUT of exactly that part, and the headers it must carry."""

    number: int
    url: str = Field(repr=False)
    headers: dict[str, str]


class SignedParts(Frozen):
    """The URLs, in the order in which they were asked for."""

    parts: tuple[SignedPart, ...]


class Grant(Frozen):
    """All that it takes to install one version: where its sealed object is for some minutes, and the key that opens it.

    The key opens this version only. Neither it nor the URL may be stored or logged.
    """

    manifest: Manifest
    url: str = Field(repr=False)
    content_key: Key
    sealed_bytes: int
    expires_at: datetime
    signature: JsonObject | None = None


class Validation(Frozen):
    """What was found when a version was completed; `report` is None while it is unfinished, or once it is erased."""

    version_id: VersionId
    state: str
    reason: str | None
    report: ValidationReport | None


def encode_key(key: bytes) -> bytes:
    """Return a key as the schemas above take it."""
    return base64.b64encode(key)
