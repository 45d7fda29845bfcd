"""`lorry campaigns`: train every user again for another base model, in the background."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from lorry.commands.engines import every_engine
from lorry.commands.job_settings import base_name, chosen_settings
from lorry.context import open_context
from lorry.output import err, out, print_json, print_table, run
from training.base_models import base_id
from training.jobs.campaigns.bases import known_bases
from training.jobs.campaigns.campaigns import Campaign, Campaigns

app = typer.Typer()
CampaignId = Annotated[str, typer.Argument(metavar="CAMPAIGN", help="id, as `lorry campaigns begin` printed it")]
Json = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]
_COLUMNS = ["campaign", "state", "done", "of", "users"]


@app.callback(invoke_without_command=True)
def list_(context: typer.Context, as_json: Json = False) -> None:
    """Campaigns, everybody's adapter for a new base model: without a command, list them, the latest first.

    A first one: `lorry bases add DIRECTORY`, then `lorry campaigns begin --base DIRECTORY`; `lorry jobs work` does it.
    """
    if context.invoked_subcommand is not None:
        return
    campaigns = run(_list(), as_json=as_json)
    if as_json:
        print_json([_described(each) for each in campaigns])
    elif campaigns:
        whole = frozenset({"campaign", "state"})
        rows = [_row(each) for each in campaigns]
        print_table("Campaigns", _COLUMNS, rows, numeric=frozenset({"done", "of"}), whole=whole)
    else:
        out.print("No campaign; begin one with `lorry campaigns begin`.")


@app.command()
def begin(
    base: Annotated[
        str | None,
        typer.Option(help="registered base model, by name or directory; LORRY_BASE_MODEL when omitted"),
    ] = None,
    users: Annotated[list[str] | None, typer.Option("--user", help="only this user; repeat it for several")] = None,
    per_hour: Annotated[float, typer.Option(help="trainings begun in an hour, at most")] = 60.0,
    priority: Annotated[int, typer.Option(min=-1000, max=1000, help="of its jobs")] = -100,
    config: Annotated[Path | None, typer.Option("--config", help="YAML file with the settings to change")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="one setting, such as steps=60")] = None,
    as_json: Json = False,
) -> None:
    """Train everybody again in the background; each user flips when theirs of the new base has passed its gate.

    The base must be registered (`lorry bases list`). Workers begin the trainings at the given rate, after everything
    else that is queued. Engines serve one base each: run engines of the new one, too, and tell gateways of them.
    """
    begun, is_served = run(_begin(base, users, per_hour, priority, config, set_ or []), as_json=as_json)
    _report(begun, as_json=as_json)
    if not is_served and not as_json:
        note = "note: no engine that is alive serves this base yet: whoever flips is refused until one does"
        err.print(note, markup=False, highlight=False)


@app.command()
def show(campaign_id: CampaignId, as_json: Json = False) -> None:
    """Show one campaign: how many users are through, and what became of them."""
    _report(run(_steer(campaign_id, "get"), as_json=as_json), as_json=as_json)


@app.command()
def pause(campaign_id: CampaignId, as_json: Json = False) -> None:
    """Submit no more jobs; those that were submitted go on."""
    _report(run(_steer(campaign_id, "pause"), as_json=as_json), as_json=as_json)


@app.command()
def resume(campaign_id: CampaignId, as_json: Json = False) -> None:
    """Submit jobs again."""
    _report(run(_steer(campaign_id, "resume"), as_json=as_json), as_json=as_json)


@app.command()
def abort(campaign_id: CampaignId, as_json: Json = False) -> None:
    """End a campaign and cancel its jobs; versions that are live by then stay live."""
    _report(run(_steer(campaign_id, "abort"), as_json=as_json), as_json=as_json)


async def _list() -> list[Campaign]:
    async with open_context() as context:
        return await Campaigns(context.database).list(tenant=context.settings.tenant)


async def _begin(
    base: str | None,
    users: list[str] | None,
    per_hour: float,
    priority: int,
    config: Path | None,
    settings: list[str],
) -> tuple[Campaign, bool]:
    """Begin it; say, too, whether some engine serves its base already."""
    from lorry.pipeline import resolve_config

    resolved = resolve_config(config, settings)
    async with open_context() as context:
        own = context.settings if base is None else context.settings.model_copy(update={"base_model": base})
        name = base_name(own)
        begun = await Campaigns(context.database).begin(
            context.settings.tenant,
            base=name,
            known=await known_bases(context.registry),
            per_hour=per_hour,
            priority=priority,
            settings=chosen_settings(resolved),
            users=users,
        )
        engines = await every_engine(context.registry)
    return begun, any(each.state == "alive" and each.base_id == base_id(name) for each in engines)


async def _steer(campaign_id: str, verb: str) -> Campaign:
    async with open_context() as context:
        campaigns = Campaigns(context.database)
        steer = {
            "get": campaigns.get,
            "pause": campaigns.pause,
            "resume": campaigns.resume,
            "abort": campaigns.abort,
        }[verb]
        return await steer(campaign_id, tenant=context.settings.tenant)


def _described(campaign: Campaign) -> dict[str, Any]:
    more = {"users": campaign.users, "done": campaign.done, "eta_seconds": campaign.eta_seconds}
    return {**asdict(campaign), **more}


def _report(campaign: Campaign, *, as_json: bool) -> None:
    if as_json:
        print_json(_described(campaign))
        return
    last = f", the last begins in about {_until_last(campaign)}" if _until_last(campaign) else ""
    out.print(
        f"{campaign.id}: {campaign.state}, {campaign.done} of {campaign.users} users{last} ({_counts(campaign)}),"
        f" for {campaign.base}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def _row(campaign: Campaign) -> list[str]:
    return [
        campaign.id,
        campaign.state,
        str(campaign.done),
        str(campaign.users),
        _counts(campaign),
    ]


def _counts(campaign: Campaign) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(campaign.counts.items())) or "nobody"


def _until_last(campaign: Campaign) -> str:
    """Return how long the campaign's rate keeps its last user waiting; empty when nobody waits."""
    return str(timedelta(seconds=round(campaign.eta_seconds))) if campaign.eta_seconds else ""
