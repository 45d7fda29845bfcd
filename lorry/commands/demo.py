"""`lorry demo`: three real people, from transcripts to profiles, with nothing prepared."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from lorry.output import command, out, print_json, run, say

_MIN_CONVERSATIONS = 5
_MIN_WORDS = 1000
_SMALLER = {"dataset.max_examples": 128, "min_steps": 36}  # three are trained, measured and asked within ten minutes


def demo(
    people: Annotated[int, typer.Option(min=1, max=20, help="how many real people")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="chooses which people, and the training's seed")] = 0,
    config: Annotated[Path | None, typer.Option("--config", help="YAML file with training settings to change")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
) -> None:
    """Import real conversations (package chitchat-dataset), train, evaluate, publish, serve, extract, print.

    Takes about ten minutes on two CPU cores, for which fewer examples are trained on than by default. What was done
    before is reused; the profiles stay in LORRY_HOME, and `lorry up` serves them.
    """
    result = run(_demo(people=people, seed=seed, config=config, as_json=as_json), as_json=as_json)
    if as_json:
        print_json(result)


async def _demo(*, people: int, seed: int, config: Path | None, as_json: bool) -> dict[str, Any]:
    from lorry import pipeline
    from lorry.context import announce, base_directory, make_plan, open_context
    from lorry.load_report import read_load_report, show_load_report
    from lorry.stages.building import build_user_dataset
    from lorry.stages.importing import import_transcripts
    from serving.extraction.render import render_markdown

    started = time.monotonic()
    settings = [f"seed={seed}"] if seed else []
    resolved = pipeline.resolve_config(config, settings)
    smaller = [f"{key}={value}" for key, value in _SMALLER.items() if resolved.origins[key] == "default"]
    if smaller:
        resolved = pipeline.resolve_config(config, [*settings, *smaller])
        say(f"Trained on less than usual, so that it ends within ten minutes: {', '.join(smaller)}.")
    say("[bold]1. The base model and the parts[/bold]")
    base_directory(make_plan())
    async with open_context(on_state=announce) as context:
        say("[bold]2. Transcripts of real people, and a dataset for each[/bold]")
        datasets = {}
        for sender in choose_people(people, seed=seed):
            user = f"chitchat-{sender[:8]}"
            imported = await import_transcripts(context, user=user, path="chitchat", user_speaker=sender)
            datasets[user] = await build_user_dataset(context, user=user, config=resolved)
            summary, counts = imported.summary, datasets[user].counts
            say(
                f"  {user}: {summary.transcripts} conversations, {summary.user_words} own words → {counts['train']}"
                f" examples ({counts['statement']} statements, {counts['negative']} negatives, {counts['reply']}"
                f" replies), {counts['held_out']} held-out replies"
            )
        say("[bold]3. An NF4 QLoRA adapter for each, judged on held-out turns, published[/bold]")
        _, published = await pipeline.train_and_publish(context, datasets, config=resolved)
        live = [user for user, each in published.items() if each.live]
        say("[bold]4. One engine serves them; each adapter is asked about its person[/bold]")
        profiles = await pipeline.extract_profiles(context, live, force=False)
        for profile in [] if as_json else profiles.values():
            out.rule(profile.user)
            out.print(render_markdown(profile), markup=False, highlight=False)
        report = await read_load_report(context.plan.engine_url)
        show_load_report(report)
        seconds = time.monotonic() - started
        described = [pipeline.describe_profile(context, profile) for profile in profiles.values()]
        say(f"Done in {seconds:.0f} s. The profiles are in {context.home.path / 'profiles'}.")
        say(f"`{command()} up` serves them; `{command()} status` shows them.")
        return {
            "seconds": round(seconds, 1),
            "profiles": described,
            "evaluation": {user: each.evaluation for user, each in published.items()},
            "load_seconds": report,
        }


def choose_people(count: int, *, seed: int) -> list[str]:
    """Return sender ids of people with enough to learn from, chosen by a hash so that nobody picked them.

    Raises:
        NothingToDo: when the data set holds fewer.
    """
    from lorry.errors import NothingToDo
    from transcripts.formats.chitchat import people

    ids = [person.sender_id for person in people(min_conversations=_MIN_CONVERSATIONS, min_words=_MIN_WORDS)]
    if len(ids) < count:
        raise NothingToDo(f"the data set holds {len(ids)} people with enough words, not {count}", field="--people")
    return sorted(ids, key=lambda sender: hashlib.sha256(f"{seed}/{sender}".encode()).digest())[:count]
