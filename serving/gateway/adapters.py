"""Which adapter version answers for a user, and if none does, why and what to do."""

from __future__ import annotations

from kit.database import Database
from kit.words import counted
from registry.client import RegistryClient
from registry.errors import AdapterNotFound, AliasNotFound, RegistryUnavailable
from registry.manifest import LIVE, AdapterRef, Manifest, Owner
from serving.errors import GatewayError, NoAdapter, UnknownModel, UnknownUser
from serving.gateway.erasing import Sign
from serving.gateway.remembered import Remembered
from transcripts.store import TranscriptStore

_PREFIX = "users/"


class Adapters:
    """The adapters of every tenant, as the registry resolves them.

    Answers are remembered briefly, and longer while the registry is silent: that what was suspended or erased meanwhile
    is not served is then up to the engines, which close by themselves without the registry.
    """

    def __init__(
        self,
        registry: RegistryClient,
        database: Database,
        *,
        cache_seconds: float,
        stale_seconds: float = 0.0,
        sign: Sign | None = None,
    ) -> None:
        """Ask `registry`; with a `sign`, nobody answers for a user who is being erased."""
        self._registry = registry
        self._database = database
        self._sign = sign
        self._resolved: Remembered[AdapterRef, Manifest] = Remembered(
            seconds=cache_seconds, stale_seconds=stale_seconds, unavailable=(RegistryUnavailable,)
        )

    async def require(self, ref: AdapterRef) -> Manifest:
        """Return the manifest of the version that `ref` names now.

        Raises:
            UnknownUser: when the tenant has neither transcripts nor an adapter of that user.
            NoAdapter: when the user is known but has no live version of this adapter.
            AliasNotFound, VersionNotFound, NotServable: when another alias or number was asked for.
            BeingErased: when the user is being erased.
            RegistryUnavailable: when the registry does not answer.
        """
        if self._sign is not None:
            await self._sign.require_not_erasing(ref.owner.tenant, ref.owner.user)
        return await self._resolved.get(ref, lambda: self._resolve(ref))

    async def _resolve(self, ref: AdapterRef) -> Manifest:
        try:
            return (await self._registry.resolve(ref)).manifest
        except AliasNotFound as exc:
            if ref.selector != LIVE:
                raise
            raise _not_live(ref) from exc
        except AdapterNotFound as exc:
            raise await self._reason(ref) from exc

    async def require_live(self, tenant: str, user: str) -> Manifest:
        """Return the user's live version of the default adapter; raises as `require` does."""
        return await self.require(AdapterRef(owner=Owner(tenant=tenant, user=user)))

    async def _reason(self, ref: AdapterRef) -> GatewayError:
        owner = ref.owner
        async with self._database.transaction() as session:
            transcripts = (await TranscriptStore(session).summary(owner.tenant, owner.user)).transcripts
        others = (await self._registry.list_adapters(owner.tenant, user=owner.user, limit=1)).adapters
        if transcripts or others:
            return NoAdapter(
                f"user {owner.user!r} has {counted(transcripts, 'transcript')} but no adapter {ref.adapter!r} yet: "
                f"train one (`POST /v1/users/{owner.user}/trainings` or `lorry run {owner.user}`), then ask again",
                transcripts=transcripts,
            )
        return UnknownUser(
            f"there are neither transcripts nor an adapter of user {owner.user!r}: import transcripts first",
            field="user_id",
        )


def parse_model(model: str, *, tenant: str) -> AdapterRef:
    """Read the `model` of an OpenAI-compatible request, ``users/<user_id>[/<adapter>][@<alias or version>]``.

    Raises:
        UnknownModel: for anything that does not begin with ``users/``.
        InvalidReference: for what does, but is no reference.
        InvalidName: when the user id is no name.
    """
    if not model.startswith(_PREFIX):
        raise UnknownModel(f"there is no model {model[:200]!r}; models are named users/<user_id>", field="model")
    return AdapterRef.parse(model, tenant=tenant)


def _not_live(ref: AdapterRef) -> NoAdapter:
    return NoAdapter(
        f"adapter {ref.adapter!r} of user {ref.owner.user!r} has no live version: let the alias `live` name a "
        "version that is ready, then ask again",
    )
