"""Everything the registry can refuse to do.

RegistryError                    500
├── InvalidReference             422
├── AdapterNotFound              404
├── VersionNotFound              404
├── AliasNotFound                404
├── BaseModelNotFound            404
├── BaseModelUnreadable          422
├── BaseModelMismatch            409
├── VersionConflict              409
├── AliasConflict                409
├── NotServable                  409
├── ArtifactError                422
│   ├── ArtifactMissing          409
│   ├── DigestMismatch           422
│   └── AdapterInvalid           422
├── Unauthorized                 401
├── Forbidden                    403
└── RegistryUnavailable          503
"""

from __future__ import annotations

from kit.errors import LorryError


class RegistryError(LorryError):
    """The registry could not do what was asked."""


class InvalidReference(RegistryError):
    """That is not the name of an adapter or version."""

    status_code = 422


class AdapterNotFound(RegistryError):
    """That user has no adapter of this name."""

    status_code = 404


class VersionNotFound(RegistryError):
    """There is no such version."""

    status_code = 404


class AliasNotFound(RegistryError):
    """That adapter has no such alias."""

    status_code = 404


class BaseModelNotFound(RegistryError):
    """That base model is not registered."""

    status_code = 404


class BaseModelUnreadable(RegistryError):
    """That directory does not hold a base model."""

    status_code = 422


class BaseModelMismatch(RegistryError):
    """The adapter was made for another base model."""

    status_code = 409


class VersionConflict(RegistryError):
    """That version exists with different content; versions are immutable."""

    status_code = 409


class AliasConflict(RegistryError):
    """The alias has moved since the caller last looked."""

    status_code = 409


class NotServable(RegistryError):
    """Only versions that are ready can be resolved or named by an alias."""

    status_code = 409


class ArtifactError(RegistryError):
    """The uploaded files are not a valid adapter."""

    status_code = 422


class ArtifactMissing(ArtifactError):
    """A declared file was never uploaded."""

    status_code = 409


class DigestMismatch(ArtifactError):
    """A file's bytes are not the declared ones."""


class AdapterInvalid(ArtifactError):
    """The directory is not an adapter that Lorry can serve."""


class Unauthorized(RegistryError):
    """A valid bearer token is required."""

    status_code = 401


class Forbidden(RegistryError):
    """This caller may not do that."""

    status_code = 403


class RegistryUnavailable(RegistryError):
    """The registry did not answer."""

    status_code = 503
