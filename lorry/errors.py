"""What the single-machine composition can refuse to do.

LocalError                 500
├── HomeUnusable           500
├── HomeBusy               409
├── PortInUse              409
├── PartDied               500
├── PartUnhealthy          500
├── MachineTooSmall        500
├── NotConfirmed           422
├── FileUnreadable         422
├── NothingToDo            422
└── NotThere               404
"""

from __future__ import annotations

from kit.errors import LorryError


class LocalError(LorryError):
    """The parts on this machine could not be run."""


class HomeUnusable(LocalError):
    """LORRY_HOME cannot be used."""


class HomeBusy(LocalError):
    """Another command starts or stops the parts of this LORRY_HOME, or runs them at other addresses."""

    status_code = 409


class PortInUse(LocalError):
    """A port that a part needs is taken."""

    status_code = 409


class PartDied(LocalError):
    """A part stopped by itself."""


class PartUnhealthy(LocalError):
    """A part did not become healthy in time."""


class MachineTooSmall(LocalError):
    """This machine has too little memory or disk."""


class NotConfirmed(LocalError):
    """Nothing was done: it was not confirmed."""

    status_code = 422


class FileUnreadable(LocalError):
    """A file that was named cannot be read."""

    status_code = 422


class NothingToDo(LocalError):
    """There is nothing that this command could work on."""

    status_code = 422


class NotThere(LocalError):
    """There is nothing of that name."""

    status_code = 404
