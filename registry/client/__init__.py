"""The registry from outside: what trainers, engines and gateways use."""

from registry.artifact.draft import check_fits_base, draft_from_directory
from registry.artifact.peft_config import canonical_config
from registry.artifact.signature import Verifier
from registry.catalog.schemas import Resolution
from registry.client.registry_client import RegistryClient
from registry.client.sealed import ObjectReader, fill_from, open_version
from registry.client.transfer import verify_directory
from registry.publishing.schemas import Grant

__all__ = [
    "Grant",
    "ObjectReader",
    "RegistryClient",
    "Resolution",
    "Verifier",
    "canonical_config",
    "check_fits_base",
    "draft_from_directory",
    "fill_from",
    "open_version",
    "verify_directory",
]
