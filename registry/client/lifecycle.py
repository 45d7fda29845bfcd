"""Steering from outside: aliases, suspension, retirement, erasure, evaluation, policy, audit, upkeep."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from kit.names import check_name
from kit.reasons import describe
from registry.client.transport import Transport
from registry.errors import InvalidReference
from registry.lifecycle.policy import TenantPolicy
from registry.lifecycle.schemas import (
    CANDIDATE,
    AliasHistory,
    AliasMoved,
    AuditPage,
    Erasure,
    Evaluation,
    EvaluationReport,
    OwnerErased,
    OwnerForgotten,
    OwnerRemains,
    PolicyChange,
    Promotion,
    Rollback,
    Suspension,
    SuspensionPage,
    Tombstone,
    VersionState,
    Why,
)
from registry.lifecycle.upkeep.schemas import PassPage, Reconcile, Retain
from registry.manifest import LIVE, JsonObject, Owner

_B = TypeVar("_B", bound=BaseModel)
_ERASE_TIMEOUT_SECONDS = 300.0
_UPKEEP_TIMEOUT_SECONDS = 600.0


class LifecycleClient:
    """`RegistryClient.lifecycle`. Every call can be repeated without doing more."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def promote(
        self,
        owner: Owner,
        adapter: str,
        *,
        source: str = CANDIDATE,
        target: str = LIVE,
        version_id: str | None = None,
        expected_version_id: str | None = None,
        why: str = "",
    ) -> AliasMoved:
        """Let `target` name what `source` names.

        Args:
            owner: whose adapter.
            adapter: its name.
            source: the alias to promote.
            target: the alias that moves.
            version_id: what `source` must name; None = whatever it names.
            expected_version_id: what `target` must name; None = whatever it names.
            why: for the audit trail.

        Raises:
            AdapterNotFound, AliasNotFound: for what does not exist.
            NotServable, GateClosed: when the version may not become live (`details["reasons"]`).
            AliasConflict: when an alias names something else than expected.
        """
        body = _body(
            Promotion,
            source=source,
            target=target,
            version_id=version_id,
            expected_version_id=expected_version_id,
            why=why,
        )
        return await self._transport.call(AliasMoved, "POST", f"{_adapter(owner, adapter)}/promote", body=body)

    async def rollback(
        self, owner: Owner, adapter: str, *, alias: str = LIVE, expected_version_id: str | None = None, why: str = ""
    ) -> AliasMoved:
        """Let an alias name what it named before; asked again after a lost answer, it goes back no further.

        Raises:
            AdapterNotFound, AliasNotFound: for what does not exist.
            NothingToRollBackTo: when no earlier version may be served.
            AliasConflict: when the alias names something else than expected.
        """
        body = _body(Rollback, alias=alias, expected_version_id=expected_version_id, why=why)
        path = f"{_adapter(owner, adapter)}/rollback"
        return await self._transport.call(AliasMoved, "POST", path, body=body, once=True)

    async def history(
        self, owner: Owner, adapter: str, *, alias: str | None = None, cursor: str | None = None, limit: int = 100
    ) -> AliasHistory:
        """Return one page of the moves of an alias, or of all, the newest first.

        Raises:
            AdapterNotFound: when there is no such adapter.
        """
        params = _given(alias=alias, cursor=cursor, limit=limit)
        return await self._transport.call(AliasHistory, "GET", f"{_adapter(owner, adapter)}/history", params=params)

    async def suspend_version(self, version_id: str, *, why: str) -> VersionState:
        """Stop a version from serving.

        Raises:
            VersionNotFound, IllegalTransition: when there is no such version, or none that serves.
        """
        return await self._transition(version_id, "suspend", why)

    async def resume_version(self, version_id: str, *, why: str) -> VersionState:
        """Let a suspended version serve again.

        Raises:
            VersionNotFound, IllegalTransition: when there is no such version, or it is not suspended.
            ArtifactMissing: when its bytes are not there.
        """
        return await self._transition(version_id, "resume", why)

    async def retire_version(self, version_id: str, *, why: str) -> VersionState:
        """Take a version out of use for good.

        Raises:
            VersionNotFound, IllegalTransition: when there is no such version, or it was never ready.
            VersionInUse: when an alias names it.
        """
        return await self._transition(version_id, "retire", why)

    async def erase_version(self, version_id: str, *, why: str, force: bool = False) -> Tombstone:
        """Leave nothing of a version but ids and times.

        Raises:
            VersionNotFound: when there is none.
            Leased: when an engine answers requests with it, unless forced.
        """
        body = _body(Erasure, why=why, force=force)
        path = f"{_version(version_id)}/erase"
        return await self._transport.call(Tombstone, "POST", path, body=body, timeout_seconds=_ERASE_TIMEOUT_SECONDS)

    async def erase_owner(self, owner: Owner, *, why: str, force: bool = False) -> OwnerErased:
        """Leave nothing of a user's adapters but ids and times, and destroy their data key.

        Raises:
            Leased: when an engine answers requests with any of them, unless forced.
        """
        body = _body(Erasure, why=why, force=force)
        path = f"{_user(owner)}/erase"
        return await self._transport.call(OwnerErased, "POST", path, body=body, timeout_seconds=_ERASE_TIMEOUT_SECONDS)

    async def remains(self, owner: Owner) -> OwnerRemains:
        """Return what the registry has of a user, and which engines hold any of it."""
        return await self._transport.call(OwnerRemains, "GET", f"{_user(owner)}/remains")

    async def forget_owner(self, owner: Owner) -> OwnerForgotten:
        """Take the name of a user who was erased out of their tombstones, if nothing else is left of them."""
        path = f"{_user(owner)}/forget"
        return await self._transport.call(OwnerForgotten, "POST", path, timeout_seconds=_ERASE_TIMEOUT_SECONDS)

    async def suspend(self, owner: Owner, adapter: str | None = None, *, why: str) -> Suspension:
        """Stop a user's adapters, or one of them, from serving.

        Raises:
            AdapterNotFound: when there is no such adapter, or the user has none.
        """
        path = f"{_subject(owner, adapter)}/suspend"
        return await self._transport.call(Suspension, "POST", path, body=_body(Why, why=why))

    async def resume(self, owner: Owner, adapter: str | None = None, *, why: str) -> None:
        """Let a suspended user, or adapter, serve again.

        Raises:
            AdapterNotFound: when there is no such adapter, or the user has none.
        """
        path = f"{_subject(owner, adapter)}/resume"
        await self._transport.call(dict[str, str], "POST", path, body=_body(Why, why=why))

    async def list_suspensions(self, tenant: str, *, cursor: str | None = None, limit: int = 100) -> SuspensionPage:
        """Return one page of a tenant's suspended users and adapters."""
        params = _given(cursor=cursor, limit=limit)
        return await self._transport.call(SuspensionPage, "GET", f"{_tenant(tenant)}/suspensions", params=params)

    async def attach_evaluation(self, version_id: str, report: JsonObject) -> EvaluationReport:
        """Attach an evaluation report to a version; gates look at the newest.

        Raises:
            VersionNotFound, IllegalTransition: when there is no such version, or it takes no report.
        """
        body = _body(Evaluation, report=report)
        return await self._transport.call(EvaluationReport, "POST", f"{_version(version_id)}/evaluations", body=body)

    async def list_evaluations(self, version_id: str) -> list[EvaluationReport]:
        """Return the reports that were attached to a version, the newest first."""
        return await self._transport.call(list[EvaluationReport], "GET", f"{_version(version_id)}/evaluations")

    async def audit_of_all(self, *, cursor: str | None = None, limit: int = 100) -> AuditPage:
        """Return one page of everything that happened, the newest first."""
        return await self._transport.call(AuditPage, "GET", "/v1/audit", params=_given(cursor=cursor, limit=limit))

    async def audit_of_version(self, version_id: str, *, cursor: str | None = None, limit: int = 100) -> AuditPage:
        """Return one page of what happened to a version, the newest first."""
        params = _given(cursor=cursor, limit=limit)
        return await self._transport.call(AuditPage, "GET", f"{_version(version_id)}/audit", params=params)

    async def audit_of(
        self, owner: Owner, adapter: str | None = None, *, cursor: str | None = None, limit: int = 100
    ) -> AuditPage:
        """Return one page of what was done to a user and their adapters, or all that happened to one adapter."""
        params = _given(cursor=cursor, limit=limit)
        return await self._transport.call(AuditPage, "GET", f"{_subject(owner, adapter)}/audit", params=params)

    async def get_policy(self, tenant: str) -> TenantPolicy:
        """Return a tenant's policy."""
        return await self._transport.call(TenantPolicy, "GET", f"{_tenant(tenant)}/policy")

    async def put_policy(self, tenant: str, policy: TenantPolicy, *, why: str = "") -> TenantPolicy:
        """Replace a tenant's policy."""
        body = _body(PolicyChange, policy=policy, why=why)
        return await self._transport.call(TenantPolicy, "PUT", f"{_tenant(tenant)}/policy", body=body)

    async def retain(self, request: Retain) -> PassPage:
        """Run one page of retention; call again with its `next_cursor` until that is None."""
        path = "/v1/maintenance/retain"
        return await self._transport.call(PassPage, "POST", path, body=request, timeout_seconds=_UPKEEP_TIMEOUT_SECONDS)

    async def reconcile(self, request: Reconcile) -> PassPage:
        """Run one page of reconcile; call again with its `next_cursor` until that is None.

        Raises:
            TooMuchMissing: when bucket and database do not seem to belong together, unless forced.
        """
        path = "/v1/maintenance/reconcile"
        return await self._transport.call(PassPage, "POST", path, body=request, timeout_seconds=_UPKEEP_TIMEOUT_SECONDS)

    async def _transition(self, version_id: str, verb: str, why: str) -> VersionState:
        path = f"{_version(version_id)}/{verb}"
        return await self._transport.call(VersionState, "POST", path, body=_body(Why, why=why))


def _body(model: type[_B], **values: Any) -> _B:
    """Build what is sent; refuse here what the registry would refuse.

    Raises:
        InvalidReference: naming the field.
    """
    try:
        return model(**values)
    except ValidationError as exc:
        first = exc.errors()[0]
        field, why = describe(first)
        raise InvalidReference(f"{field}: {why}", field=field) from exc


def _given(**params: Any) -> dict[str, Any]:
    return {name: value for name, value in params.items() if value is not None}


def _tenant(tenant: str) -> str:
    return f"/v1/tenants/{check_name(tenant, field='tenant')}"


def _user(owner: Owner) -> str:
    return f"{_tenant(owner.tenant)}/users/{owner.user}"


def _adapter(owner: Owner, adapter: str) -> str:
    return f"{_user(owner)}/adapters/{check_name(adapter, field='adapter')}"


def _subject(owner: Owner, adapter: str | None) -> str:
    return _user(owner) if adapter is None else _adapter(owner, adapter)


def _version(version_id: str) -> str:
    return f"/v1/versions/{check_name(version_id, field='version_id')}"
