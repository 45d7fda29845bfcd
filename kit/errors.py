"""The root of every error tree, and kit's own branch.

Each package draws its tree under a root of its own that derives from `LorryError`.
A class's docstring is its default message; its status code is what the HTTP edge answers.

LorryError                   500
└── KitError                 500
    ├── InvalidName          422
    ├── InvalidValue         422
    ├── SettingsInvalid      422
    ├── ObjectMissing        404
    ├── ObjectConflict       409
    ├── BeingErased          409
    ├── RequestTooLarge      413
    ├── StorageUnavailable   503
    ├── DatabaseUnavailable  503
    ├── BackgroundEnded      500
    ├── SealBroken           500
    ├── MasterKeyInvalid     500
    ├── MasterKeyMissing     503
    └── MasterKeyUnavailable 503
"""

from __future__ import annotations

import inspect
import re
from typing import Any


class LorryError(Exception):
    """Lorry could not do what was asked."""

    status_code = 500

    def __init__(self, message: str | None = None, *, field: str | None = None, **details: Any) -> None:
        """Explain one failure.

        Args:
            message: what happened and what to do; the class docstring when omitted.
            field: the name of the offending input field, file or line, when there is one.
            details: further facts, shown to the caller as problem-details extensions; never secrets.
        """
        self.message = message or inspect.cleandoc(type(self).__doc__ or "").split("\n\n")[0]
        self.field = field
        self.details = details
        super().__init__(self.message)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.message, self.field, self.details))


def _rebuild(cls: type[LorryError], message: str, field: str | None, details: dict[str, Any]) -> LorryError:
    return cls(message, field=field, **details)


def problem_code(error: type[Exception]) -> str:
    """Return the class name as kebab-case: ``AdapterNotFound`` → ``adapter-not-found``."""
    return re.sub(r"(?<!^)(?=[A-Z])", "-", error.__name__).lower()


class KitError(LorryError):
    """A shared part failed."""


class InvalidName(KitError):
    """That name has characters or a length that names may not have."""

    status_code = 422


class InvalidValue(KitError):
    """A value is out of the range, or has characters, that can be stored."""

    status_code = 422


class SettingsInvalid(KitError):
    """A LORRY_ variable of the environment cannot be used."""

    status_code = 422


class ObjectMissing(KitError):
    """There is no object at that key."""

    status_code = 404


class ObjectConflict(KitError):
    """The object changed, or exists already, since the caller last looked."""

    status_code = 409


class BeingErased(KitError):
    """This user is being erased: until that has ended, nothing of theirs is taken in, made or answered."""

    status_code = 409


class RequestTooLarge(KitError):
    """The request's body is larger than this service reads."""

    status_code = 413


class StorageUnavailable(KitError):
    """The object store did not answer."""

    status_code = 503


class DatabaseUnavailable(KitError):
    """The database did not answer."""

    status_code = 503


class BackgroundEnded(KitError):
    """Work that this process cannot be without has ended by itself."""


class SealBroken(KitError):
    """Sealed bytes are damaged, or were sealed under another key."""


class MasterKeyInvalid(KitError):
    """The master keys cannot be used as they are set up."""


class MasterKeyMissing(KitError):
    """This process does not have the master key that a data key is wrapped under."""

    status_code = 503


class MasterKeyUnavailable(KitError):
    """The service that keeps the master key did not answer."""

    status_code = 503
