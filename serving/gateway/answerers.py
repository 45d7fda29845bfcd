"""Who answers for a user: a version of their adapter or, where the caller accepts it, the base with their profile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from registry.manifest import AdapterRef
from serving.errors import NoAdapter
from serving.extraction.engine_client import EngineClient
from serving.extraction.engines import Engines
from serving.extraction.profile import AdapterVersion, Profile
from serving.extraction.render import render_markdown
from serving.gateway.adapters import Adapters
from serving.gateway.auth import Caller
from serving.gateway.erasing import Sign
from serving.gateway.profiles import Profiles
from serving.gateway.schemas import FALLBACK_HEADER, adapter_headers, adapter_version
from serving.gateway.scopes import Scope

Fallback = Literal["profile"]
_ORDER = (
    "You are the person whom this profile describes. Answer as they would, in the first person. Of what the profile "
    "does not say, say that you do not know.\n\n"
)


@dataclass(frozen=True, kw_only=True)
class Answerer:
    """Who answers one request.

    `model` is what `engine` calls it; `adapter` None = the base answers, with `prompt` before everything else.
    """

    tenant: str
    user: str
    engine: EngineClient
    model: str
    engine_headers: dict[str, str]
    headers: dict[str, str]
    adapter: AdapterVersion | None
    prompt: str | None = None

    @property
    def fallback(self) -> Fallback | None:
        """What answers in the place of the adapter."""
        return "profile" if self.adapter is None else None

    def prepare(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the messages as this one is to be asked them: the profile joins a system message that is there."""
        if self.prompt is None:
            return messages
        if messages and messages[0].get("role") == "system":
            return [{**messages[0], "content": _joined(self.prompt, messages[0].get("content"))}, *messages[1:]]
        return [{"role": "system", "content": self.prompt}, *messages]


class Answerers:
    """Chooses who answers."""

    def __init__(
        self,
        adapters: Adapters,
        profiles: Profiles,
        engines: Engines,
        *,
        sign: Sign,
        base_name: str,
        profile_characters: int,
    ) -> None:
        self._adapters = adapters
        self._sign = sign
        self._profiles = profiles
        self._engines = engines
        self._base_name = base_name
        self._profile_characters = profile_characters

    async def choose(self, ref: AdapterRef, *, fallback: Fallback | None = None) -> Answerer:
        """Return who answers for the user of `ref`.

        Raises:
            NoAdapter: when there is no live version, and no `fallback` is wanted or there is no profile either.
            UnknownUser, AliasNotFound, VersionNotFound, NotServable, BeingErased, RegistryUnavailable: as
                `Adapters.require`.
        """
        tenant, user = ref.owner.tenant, ref.owner.user
        try:
            manifest = await self._adapters.require(ref)
        except NoAdapter as exc:
            if fallback is None:
                raise
            await self._sign.require_not_erasing(tenant, user, reads_database=True)
            profile = await self._profiles.latest(tenant, user)
            if profile is None:
                raise NoAdapter(f"{exc.message}; nor has the user a profile to fall back on", **exc.details) from exc
            return self._base(tenant, user, profile)
        engine = self._engines.of(manifest)
        return Answerer(
            tenant=tenant,
            user=user,
            engine=engine,
            model=manifest.version_id,
            engine_headers=engine.headers(manifest, kind="live"),
            headers=adapter_headers(manifest.version),
            adapter=adapter_version(manifest),
        )

    def _base(self, tenant: str, user: str, profile: Profile) -> Answerer:
        engine = self._engines.default
        return Answerer(
            tenant=tenant,
            user=user,
            engine=engine,
            model=self._base_name,
            engine_headers=engine.base_headers(tenant, kind="live"),
            headers={**adapter_headers(None), FALLBACK_HEADER: "profile"},
            adapter=None,
            prompt=_ORDER + _shortened(render_markdown(profile), self._profile_characters),
        )


def allowed_fallback(caller: Caller, fallback: Fallback | None) -> Fallback | None:
    """Return the fallback that a caller asks for: who hears the base repeat a profile has read it.

    Raises:
        ScopeMissing: when the caller's key may not read profiles.
    """
    if fallback is not None:
        caller.require(Scope.PROFILES_READ)
    return fallback


def _shortened(text: str, characters: int) -> str:
    """Return whole lines of `text`, no more than fit."""
    return text if len(text) <= characters else text[:characters].rpartition("\n")[0]


def _joined(prompt: str, content: Any) -> Any:
    if isinstance(content, list):
        return [{"type": "text", "text": prompt}, *content]
    return f"{prompt}\n\n{content}" if isinstance(content, str) else prompt
