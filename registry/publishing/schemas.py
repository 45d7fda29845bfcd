"""What travels between the registry and a publisher, besides drafts and manifests."""

from __future__ import annotations

from registry.manifest import Frozen, Manifest, VersionId


class FileUpload(Frozen):
    """A URL that takes one PUT of exactly the declared bytes, and the headers it must carry."""

    url: str
    headers: dict[str, str]


class Publication(Frozen):
    """Where a publish stands; `uploads` maps file names to URLs and is empty once the version is ready."""

    version_id: VersionId
    state: str
    manifest: Manifest
    uploads: dict[str, FileUpload]
