"""Everything the registry can refuse to do.

RegistryError                    500
├── InvalidReference             422
│   └── InvalidCursor            422
├── AdapterNotFound              404
├── VersionNotFound              404
├── AliasNotFound                404
├── BaseModelNotFound            404
├── EngineNotFound               404
├── EngineSuperseded             409
├── EngineAlive                  409
├── BaseModelUnreadable          422
├── BaseModelIncomplete          409
├── BaseModelMismatch            409
├── VersionConflict              409
├── LimitReached                 409
├── SignatureInvalid             422
├── AliasConflict                409
├── GateClosed                   409
├── IllegalTransition            409
├── VersionInUse                 409
├── Leased                       409
├── NothingToRollBackTo          409
├── TooMuchMissing               409
├── NotServable                  409
│   └── DataKeyDestroyed         409
├── MasterKeyNotFound            404
├── MasterKeyInUse               409
├── ArtifactError                422
│   ├── ArtifactMissing          409
│   ├── DigestMismatch           422
│   └── AdapterInvalid           422
├── PreconditionFailed           412
├── IdempotencyKeyReused         422
├── Unauthorized                 401
├── Forbidden                    403
└── RegistryUnavailable          503
    └── RequestRunning           409
"""

from __future__ import annotations

from kit.errors import LorryError


class RegistryError(LorryError):
    """The registry could not do what was asked."""


class InvalidReference(RegistryError):
    """That is not the name of an adapter or version."""

    status_code = 422


class InvalidCursor(InvalidReference):
    """That cursor was not given by an earlier page of this listing."""


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


class EngineNotFound(RegistryError):
    """That engine is not registered: register it, and report what it holds."""

    status_code = 404


class EngineSuperseded(RegistryError):
    """Another engine has registered under this id since."""

    status_code = 409


class EngineAlive(RegistryError):
    """That engine is alive; only one that has stopped can be forgotten."""

    status_code = 409


class BaseModelUnreadable(RegistryError):
    """That directory does not hold a base model."""

    status_code = 422


class BaseModelIncomplete(RegistryError):
    """That base model was registered without its configuration, so nothing can be compared with it."""

    status_code = 409


class BaseModelMismatch(RegistryError):
    """The adapter was made for another base model."""

    status_code = 409


class LimitReached(RegistryError):
    """The tenant's policy allows no more of these."""

    status_code = 409


class SignatureInvalid(RegistryError):
    """The signature is missing, or is not one of this version by the expected key."""

    status_code = 422


class VersionConflict(RegistryError):
    """That version exists with different content; versions are immutable."""

    status_code = 409


class AliasConflict(RegistryError):
    """The alias has moved since the caller last looked."""

    status_code = 409


class GateClosed(RegistryError):
    """The tenant's policy does not let this alias move to that version."""

    status_code = 409


class IllegalTransition(RegistryError):
    """The version's state does not allow that."""

    status_code = 409


class VersionInUse(RegistryError):
    """An alias names that version; move the alias first."""

    status_code = 409


class Leased(RegistryError):
    """An engine answers requests with that version right now; try again, or force it."""

    status_code = 409


class NothingToRollBackTo(RegistryError):
    """No version that this alias named before can be served."""

    status_code = 409


class TooMuchMissing(RegistryError):
    """So many objects are missing that bucket and database do not seem to belong together."""

    status_code = 409


class NotServable(RegistryError):
    """Only versions that are ready can be resolved or named by an alias."""

    status_code = 409


class DataKeyDestroyed(NotServable):
    """The key of this content was destroyed; nobody can read it any more."""


class MasterKeyNotFound(RegistryError):
    """The key file has no such master key."""

    status_code = 404


class MasterKeyInUse(RegistryError):
    """Data keys are wrapped under that master key; rotate first."""

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


class PreconditionFailed(RegistryError):
    """What the caller's condition names is not how things are any more."""

    status_code = 412


class IdempotencyKeyReused(RegistryError):
    """That idempotency key was used for another request; use a new one."""

    status_code = 422


class Unauthorized(RegistryError):
    """A valid bearer token is required."""

    status_code = 401


class Forbidden(RegistryError):
    """This caller may not do that."""

    status_code = 403


class RegistryUnavailable(RegistryError):
    """The registry did not answer."""

    status_code = 503


class RequestRunning(RegistryUnavailable):
    """The first request with that idempotency key still runs; ask again later."""

    status_code = 409
