"""`lorry jobs costs | quota | rules`: what a tenant's trainings cost, may use, and when they come unasked."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from typing import Annotated, Any

import typer

from lorry.context import open_context
from lorry.output import out, print_json, print_table, run
from training.jobs.costs.costs import Costs
from training.jobs.dispatch import Quota
from training.jobs.errors import JobRequestInvalid
from training.jobs.quotas.quotas import Quotas
from training.jobs.staleness import Rules
from training.jobs.triggers.tenant_rules import TenantRules

_SETTING = "settings."
Json = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]


def costs(
    by: Annotated[str, typer.Option(help="tenant, user_id, job_id or kind (the stage)")] = "user_id",
    days: Annotated[float, typer.Option(min=0, help="of the last so many days")] = 30,
    as_json: Json = False,
) -> None:
    """Sum tokens, dollars and device seconds; estimates and what was spent apart."""
    found = run(_costs(by, days), as_json=as_json)
    if as_json:
        print_json(found)
        return
    if not found:
        out.print(f"No training has cost anything in {days:g} days.")
        return
    numbers = ["input tokens", "output tokens", "trained tokens", "dollars", "device seconds"]
    rows = [
        [
            str(each["of"]),
            "estimated" if each["is_estimate"] else "spent",
            *(_amount(each, name.replace(" ", "_")) for name in numbers),
        ]
        for each in found
    ]
    print_table(f"Costs of {days:g} days", [by, "", *numbers], rows, numeric=frozenset(numbers))


def _amount(sums: dict[str, Any], name: str) -> str:
    """Return a sum; nothing for the dollars of tokens that have no known price."""
    if name == "dollars" and not sums[name] and sums["input_tokens"] + sums["output_tokens"]:
        return "—"
    return f"{sums[name]:.{4 if name == 'dollars' else 0}f}"


def quota(
    max_running: Annotated[int | None, typer.Option(help="jobs at once; -1 = without limit")] = None,
    max_daily: Annotated[int | None, typer.Option(help="jobs submitted in 24 hours; -1 = without limit")] = None,
    max_monthly_dollars: Annotated[
        float | None, typer.Option(help="paid to question writers in 30 days; -1 = without limit")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what the tenant's trainings may use; change what is given.

    Jobs above *max-running* wait; above *max-daily* they are refused; what is written by paid writers stops at
    *max-monthly-dollars*, before anything is bought.
    """
    given = {"max_running": max_running, "max_daily": max_daily, "max_monthly_dollars": max_monthly_dollars}
    found = run(_quota({name: value for name, value in given.items() if value is not None}), as_json=as_json)
    if as_json:
        print_json(asdict(found))
        return
    for name, value in asdict(found).items():
        out.print(f"{name:<20} {'without limit' if value is None else value}", highlight=False)


def rules(
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="RULE=VALUE", help="such as enabled=true; repeat it for several"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show when users are trained without anybody asking; change what is given (an empty value = never).

    The rules: *enabled*; *min_words*, own words below which nobody is trained; *new_words* and *new_share*, own words
    since the training, and their share of those trained on; *max_age_days* of an adapter, when there is anything new;
    *schedule*, a cron line in UTC such as `0 3 * * 1`; *base_change*, trained for another base model than the workers'
    now; *priority* of the jobs; *settings.KEY*, a setting of these trainings, such as `settings.start=shared/common`.
    `lorry status` says who is due, and why.
    """
    found = run(_rules(set_ or []), as_json=as_json)
    if as_json:
        print_json(asdict(found))
        return
    lines = asdict(found)
    settings = lines.pop("settings")
    lines |= {f"{_SETTING}{key}": value for key, value in settings.items()}
    for name, value in lines.items():
        out.print(f"{name:<20} {_shown(value)}", highlight=False)


async def _costs(by: str, days: float) -> list[dict[str, Any]]:
    async with open_context() as context:
        return await Costs(context.database).sums(tenant=context.settings.tenant, by=by, days=days)


async def _quota(given: dict[str, float]) -> Quota:
    async with open_context() as context:
        quotas, tenant = Quotas(context.database), context.settings.tenant
        found = await quotas.get(tenant)
        if not given:
            return found
        limits: dict[str, Any] = {name: None if value == -1 else value for name, value in given.items()}
        return await quotas.put(tenant, replace(found, **limits))


async def _rules(settings: list[str]) -> Rules:
    async with open_context() as context:
        rules, tenant = TenantRules(context.database), context.settings.tenant
        found = await rules.get(tenant)
        return await rules.put(tenant, parse_rules(found, settings)) if settings else found


def parse_rules(rules: Rules, settings: list[str]) -> Rules:
    """Return the rules with ``key=value`` changes.

    Raises:
        JobRequestInvalid: naming the rule and the reason.
    """
    kinds: dict[str, Any] = {
        **dict.fromkeys(("enabled", "base_change"), _truth),
        **dict.fromkeys(("min_words", "new_words", "priority"), int),
        **dict.fromkeys(("new_share", "max_age_days"), float),
        "schedule": str,
    }
    optional = {"new_words", "max_age_days", "schedule"}
    for setting in settings:
        key, separator, value = setting.partition("=")
        if separator and key.startswith(_SETTING):
            rules = _with_setting(rules, key.removeprefix(_SETTING), value)
            continue
        if not separator or key not in kinds:
            known = ", ".join([*kinds, f"{_SETTING}KEY"])
            raise JobRequestInvalid(f"{setting!r} must be RULE=VALUE with one of {known}", field=key)
        if not value and key not in optional:
            raise JobRequestInvalid(f"{key} needs a value", field=key)
        try:
            parsed = kinds[key](value) if value else None
        except ValueError as exc:
            raise JobRequestInvalid(f"{key}: {value!r} is not a value for it", field=key) from exc
        if isinstance(parsed, float) and not math.isfinite(parsed):
            raise JobRequestInvalid(f"{key}: {value!r} is not a number", field=key)
        changed: dict[str, Any] = {key: parsed}
        rules = replace(rules, **changed)
    return rules.check()


def _with_setting(rules: Rules, key: str, value: str) -> Rules:
    others = {name: each for name, each in rules.settings.items() if name != key}
    return replace(rules, settings={**others, key: value} if value else others)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "never" if value is None else str(value)


def _truth(value: str) -> bool:
    known = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if value.lower() not in known:
        raise ValueError(value)
    return known[value.lower()]
