"""Which base models a campaign may be for: those that a registry knows, and those that every worker can unpack."""

from __future__ import annotations

from collections.abc import Collection

from registry.client import RegistryClient
from training.base_models import PACKAGED, base_id
from training.jobs.errors import JobRequestInvalid


async def known_bases(registry: RegistryClient) -> frozenset[str]:
    """Return their ids.

    Raises:
        RegistryUnavailable: the registry does not answer.
    """
    return frozenset({*(base.id for base in await registry.list_bases()), *PACKAGED})


def require_known(base: str, known: Collection[str]) -> None:
    """Refuse a base that nobody registered, which would fail a whole tenant's trainings one by one.

    Raises:
        JobRequestInvalid: naming the base and those that are known.
    """
    name = base_id(base)
    if name not in known:
        raise JobRequestInvalid(
            f"no base model {name!r} is registered; known are {', '.join(sorted(known))}. Register another with"
            " `lorry bases add DIRECTORY`",
            field="base",
            known=sorted(known),
        )
