"""Everything serving can refuse to do.

ServingError                     500
└── EngineError                  500
    ├── EngineMisconfigured      500
    ├── AdapterUnfit             409
    ├── AdapterDamaged           502
    ├── AdapterNotLoaded         500
    ├── CacheFull                503
    ├── CacheBusy                503
    └── RegistryRefusedEngine    503
"""

from __future__ import annotations

from kit.errors import LorryError


class ServingError(LorryError):
    """Serving could not do what was asked."""


class EngineError(ServingError):
    """The engine could not do what was asked."""


class EngineMisconfigured(EngineError):
    """The engine cannot start with these settings."""


class AdapterUnfit(EngineError):
    """The adapter is larger than this engine's slots, or touches layers that it does not serve."""

    status_code = 409


class AdapterDamaged(EngineError):
    """What was downloaded is not what the manifest describes."""

    status_code = 502


class AdapterNotLoaded(EngineError):
    """The engine could not load the adapter's weights."""


class CacheFull(EngineError):
    """The engine's disk has no room for the adapter."""

    status_code = 503


class CacheBusy(EngineError):
    """Another process has been installing this adapter for too long."""

    status_code = 503


class RegistryRefusedEngine(EngineError):
    """The registry does not accept this engine's token."""

    status_code = 503
