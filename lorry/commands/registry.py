"""`lorry registry`: keep it in order (reconcile, retain), and say what a tenant may do (policy)."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

import typer
from pydantic import ValidationError

from kit.reasons import describe
from lorry.commands.adapter_lifecycle import AUDIT_COLUMNS, audit_row
from lorry.context import Context, open_context
from lorry.output import err, out, print_json, print_table, run
from registry.errors import InvalidReference
from registry.lifecycle.policy import TenantPolicy
from registry.lifecycle.schemas import AuditPage
from registry.lifecycle.upkeep.schemas import Finding, PassPage, Reconcile, Retain
from registry.manifest import Owner

_R = TypeVar("_R", bound=Retain)
_SOMETHING_LEFT = 4

app = typer.Typer(no_args_is_help=True, help="Keep the registry in order; policies of tenants.")
policy = typer.Typer(no_args_is_help=True, help="What a tenant may publish, what its gates ask, what is kept.")
app.add_typer(policy, name="policy")
Json = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="say what would be done, and change nothing")]
Tenant = Annotated[str | None, typer.Option(help="the tenant; LORRY_TENANT when omitted")]


@app.command()
def reconcile(
    dry_run: DryRun = False,
    remove_unknown: Annotated[
        bool, typer.Option("--remove-unknown", help="also remove objects of which the database knows nothing")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="suspend versions even if most objects seem to be missing")
    ] = False,
    as_json: Json = False,
) -> None:
    """Let tables and object store agree again. Exit code 4: something is (or, in a dry run, would be) left to do."""
    request = Reconcile(dry_run=dry_run, remove_unknown=remove_unknown, force=force)
    findings = run(_whole_pass(lambda context: context.registry.lifecycle.reconcile, request), as_json=as_json)
    _show(findings, "Reconcile", dry_run=dry_run, as_json=as_json)
    if any(not finding.done for finding in findings):
        raise typer.Exit(_SOMETHING_LEFT)


@app.command()
def retain(dry_run: DryRun = False, as_json: Json = False) -> None:
    """Retire versions beyond the tenants' numbers, and remove the bytes of those retired long enough."""
    request = Retain(dry_run=dry_run)
    findings = run(_whole_pass(lambda context: context.registry.lifecycle.retain, request), as_json=as_json)
    _show(findings, "Retention", dry_run=dry_run, as_json=as_json)


@app.command()
def audit(
    user: Annotated[
        str | None, typer.Option(help="only what was done to this user and their adapters, also once erased")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="how many, the newest first")] = 50,
    as_json: Json = False,
) -> None:
    """List everything that happened, also to base models, engines, keys and policies: who, when, from, to, why."""
    found = run(_audit(limit, user=user), as_json=as_json)
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    print_table("Audit trail", AUDIT_COLUMNS, [audit_row(entry) for entry in found.entries])


@policy.command()
def show(tenant: Tenant = None, as_json: Json = False) -> None:
    """Show a tenant's policy."""
    _show_policy(run(_get_policy(tenant), as_json=as_json), as_json=as_json)


@policy.command("set")
def set_(
    rules: Annotated[
        list[str],
        typer.Argument(help="NAME=VALUE, as keep_versions=5, max_rank=null or gate.pushed.require_evaluation=true"),
    ],
    tenant: Tenant = None,
    why: Annotated[str, typer.Option(help="the reason, for the audit trail")] = "",
    as_json: Json = False,
) -> None:
    """Change rules of a tenant's policy; values are JSON, and the other rules stay."""
    _show_policy(run(_set_policy(tenant, rules, why), as_json=as_json), as_json=as_json)


async def _whole_pass(choose: Callable[[Context], Callable[[_R], Awaitable[PassPage]]], request: _R) -> list[Finding]:
    """Run a pass to its end, page by page, and tell on standard error how far it is."""
    findings: list[Finding] = []
    async with open_context() as context:
        examined: dict[str, int] = {}
        while True:
            page = await choose(context)(request)
            findings += page.findings
            examined[page.step] = examined.get(page.step, 0) + page.examined
            if page.next_cursor is None:
                break
            request = request.model_copy(update={"cursor": page.next_cursor})
    for step, count in examined.items():
        err.print(f"  [dim]{step}: {count} looked at[/dim]", highlight=False)
    return findings


def _show(findings: list[Finding], title: str, *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        print_json({"dry_run": dry_run, "findings": [finding.model_dump(mode="json") for finding in findings]})
        return
    if not findings:
        out.print("nothing to do", highlight=False)
        return
    rows = [
        [
            finding.kind,
            finding.version_id or finding.key or "",
            finding.action,
            "yes" if finding.done else "no",
            finding.detail or "",
        ]
        for finding in findings
    ]
    suffix = " (dry run: nothing was changed)" if dry_run else ""
    print_table(f"{title}{suffix}", ["what", "version or key", "action", "done", "detail"], rows)


async def _audit(limit: int, *, user: str | None) -> AuditPage:
    async with open_context() as context:
        if user is not None:
            owner = Owner.named(tenant=context.settings.tenant, user=user)
            return await context.registry.lifecycle.audit_of(owner, limit=limit)
        return await context.registry.lifecycle.audit_of_all(limit=limit)


async def _get_policy(tenant: str | None) -> TenantPolicy:
    async with open_context() as context:
        return await context.registry.lifecycle.get_policy(tenant or context.settings.tenant)


async def _set_policy(tenant: str | None, rules: list[str], why: str) -> TenantPolicy:
    async with open_context() as context:
        named = tenant or context.settings.tenant
        changed = (await context.registry.lifecycle.get_policy(named)).model_dump(mode="json")
        for rule in rules:
            _set_rule(changed, rule)
        try:
            wanted = TenantPolicy.model_validate(changed)
        except ValidationError as exc:
            first = exc.errors()[0]
            field, why = describe(first)
            raise InvalidReference(f"{field}: {why}", field=field) from exc
        return await context.registry.lifecycle.put_policy(named, wanted, why=why)


def _set_rule(changed: dict[str, Any], rule: str) -> None:
    """Put one NAME=VALUE into a policy.

    Raises:
        InvalidReference: when it is not one, or there is no such rule.
    """
    name, equals, text = rule.partition("=")
    *parents, last = name.split(".")
    place: Any = changed
    for parent in parents:
        place = place.get(parent) if isinstance(place, dict) else None
    if not equals or not isinstance(place, dict) or last not in place:
        raise InvalidReference(f"{rule!r} is not NAME=VALUE with the name of a rule", field=name)
    try:
        place[last] = json.loads(text)
    except ValueError as exc:
        raise InvalidReference(f"{name}: {text!r} is not JSON", field=name) from exc


def _show_policy(found: TenantPolicy, *, as_json: bool) -> None:
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    rules = dict(_flat(found.model_dump(mode="json")))
    print_table("Policy", ["rule", "value"], [[name, json.dumps(value)] for name, value in rules.items()])


def _flat(rules: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Return every rule by its dotted name; a gate's metrics are one rule."""
    found: list[tuple[str, Any]] = []
    for name, value in rules.items():
        nested = isinstance(value, dict) and name != "metrics"
        found += _flat(value, f"{prefix}{name}.") if nested else [(f"{prefix}{name}", value)]
    return found
