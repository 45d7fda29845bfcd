"""The registry from outside: what trainers, engines and gateways use."""

from registry.artifact.draft import check_fits_base, draft_from_directory
from registry.artifact.peft_config import canonical_config
from registry.artifact.signature import Verifier
from registry.catalog.schemas import (
    AdapterDetail,
    AdapterPage,
    Alias,
    Difference,
    FoundVersionPage,
    Resolution,
    VersionDetail,
    VersionPage,
)
from registry.client.registry_client import RegistryClient
from registry.client.sealed import ObjectReader, fill_from, open_version
from registry.client.transfer import verify_directory
from registry.lifecycle.schemas import (
    AliasHistory,
    AliasMove,
    AliasMoved,
    Promotion,
    Rollback,
    Suspension,
    VersionState,
    Why,
)
from registry.publishing.schemas import Grant

__all__ = [
    "AdapterDetail",
    "AdapterPage",
    "Alias",
    "AliasHistory",
    "AliasMove",
    "AliasMoved",
    "Difference",
    "FoundVersionPage",
    "Grant",
    "ObjectReader",
    "Promotion",
    "RegistryClient",
    "Resolution",
    "Rollback",
    "Suspension",
    "Verifier",
    "VersionDetail",
    "VersionPage",
    "VersionState",
    "Why",
    "canonical_config",
    "check_fits_base",
    "draft_from_directory",
    "fill_from",
    "open_version",
    "verify_directory",
]
