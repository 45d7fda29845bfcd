"""`lorry build-dataset | train | extract | run`: the pipeline, stage by stage or whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from kit.words import counted, tallied
from lorry.commands.transcripts import ask_speaker, tell_imported
from lorry.output import out, print_json, run

User = Annotated[str, typer.Argument(help="user_id")]
Config = Annotated[Path | None, typer.Option("--config", help="YAML file with the settings to change")]
Json = Annotated[bool, typer.Option("--json", help="print the result as JSON")]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="one setting, such as steps=60 or dataset.max_examples=50")
]

_BUILT = "dataset of {user}: {train} examples to train on, {held_out} held-out replies, in {directory}"
_EXTRACTED = "profile of {user}: {said}, in {directory}"


def build_dataset(
    user: User,
    config: Config = None,
    set_: Set = None,
    output: Annotated[Path | None, typer.Option(help="directory to write; LORRY_HOME when omitted")] = None,
    estimate: Annotated[
        bool,
        typer.Option(
            "--estimate",
            help="only say what the configured question writer would cost; claude counts tokens, which needs its key",
        ),
    ] = False,
    score: Annotated[
        bool,
        typer.Option(
            "--score",
            help="also ask the base model, as jobs do, which answers it gives by itself: nothing is learnt from these."
            " Loads the base and runs it over the examples; dataset.on_platitude says what becomes of what is found",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Write a user's dataset from their transcripts: questions, replies, and held-out turns."""
    from lorry.pipeline import run_build_dataset, run_estimate

    if estimate and score:
        raise typer.BadParameter("--estimate only says what writing would cost, and --score is about what was written")
    if estimate:
        cost = run(run_estimate(user, config=config, settings=set_ or []), as_json=as_json)
        print_json(cost) if as_json else out.print(_costs(cost), highlight=False, markup=False, soft_wrap=True)
        return
    built = run(
        run_build_dataset(user, config=config, settings=set_ or [], output=output, score=score), as_json=as_json
    )
    _report(built, as_json=as_json, text=_BUILT)
    if not as_json:
        for line in _said_of_pairs(built):
            out.print(line, highlight=False, markup=False, soft_wrap=True)


def train(
    users: Annotated[list[str], typer.Argument(help="one or more user_ids; the base is loaded once for all")],
    config: Config = None,
    set_: Set = None,
    dataset: Annotated[Path | None, typer.Option(help="dataset directory, for a single user")] = None,
    publish: Annotated[bool, typer.Option(help="publish to the registry and move `live` if the gate passes")] = True,
    as_json: Json = False,
) -> None:
    """Train, evaluate on held-out turns, publish. A training that finished before is reused."""
    from lorry.pipeline import run_train

    results = run(
        run_train(users, config=config, settings=set_ or [], dataset=dataset, publish=publish), as_json=as_json
    )
    if as_json:
        print_json(results)
        return
    for user, result in results.items():
        out.print(_trained(user, result), highlight=False, markup=False, soft_wrap=True)


def _costs(cost: dict[str, Any]) -> str:
    usage = cost["usage"]
    tokens = f"{usage['requests']} requests, {usage['output_tokens']} tokens of answers"
    if cost["dollars"] is None:
        return f"writing for {cost['user']}: {tokens}; no price is known for {cost['model']}"
    priced = f", at prices of {cost['prices_as_of']}" if cost["prices_as_of"] else ""
    return f"writing for {cost['user']}: about ${cost['dollars']:.4f} ({tokens}{priced})"


def _said_of_pairs(built: dict[str, Any]) -> Iterator[str]:
    """Say what a service was paid, what was redacted, and what became of pairs that are not in the dataset."""
    from training.writers.cost import Cost

    writing, quality, redacted = built["writing"], built["quality"], built["redaction"]
    if writing is not None and writing["cost"]["usage"]["requests"]:
        paid = Cost.from_json(writing["cost"]).paid
        yield f"{writing['writer']} was paid for {paid}; pairs of no use: {tallied(writing['dropped'])}"
    if redacted:
        yield f"redacted: {tallied(redacted)}"
    if count := built.get("canaries"):
        yield f"canaries planted beside them: {count}"
    if quality is not None and quality["scored"]:
        asked = counted(quality["scored"], "example")
        yield f"the base was asked about {asked}; `lorry review {built['user']} --show ID` has its score"
    if quality is not None and (quality["dropped"] or quality["warnings"]):
        found = counted(quality["warnings"], "finding")
        yield f"dropped: {tallied(quality['dropped'])}; {found} to look at in {Path(built['directory']) / 'quality.md'}"


def _trained(user: str, result: dict[str, Any]) -> str:
    if "version" not in result:
        return f"adapter of {user}, not published: {result['adapter_directory']}"
    live = "live" if result["gate"]["passed"] else "live as before, without passing this gate"
    return f"{user}: version {result['version']}, {live if result['live'] else 'kept but not live'}"


def extract(
    user: User,
    force: Annotated[
        bool, typer.Option("--force", help="extract again although this version's profile exists")
    ] = False,
    as_json: Json = False,
) -> None:
    """Ask the user's live adapter and write their profile."""
    from lorry.pipeline import run_extract

    extracted = run(run_extract(user, force=force), as_json=as_json)
    _report(extracted, as_json=as_json, text=_EXTRACTED)


def run_all(
    user: User,
    path: Annotated[str | None, typer.Argument(help="transcripts to import first; omit to use those imported")] = None,
    format: Annotated[str | None, typer.Option(help="format of the transcripts")] = None,
    user_speaker: Annotated[str | None, typer.Option(help="the user's name in the transcripts")] = None,
    config: Config = None,
    set_: Set = None,
    as_json: Json = False,
) -> None:
    """Import, build the dataset, train, evaluate, publish, extract. What is done already is not repeated."""
    from lorry.pipeline import run_everything

    speaker = user_speaker
    if path is not None and speaker is None:
        speaker = run(ask_speaker(path, format=format), as_json=as_json)
    result = run(
        run_everything(
            user,
            path=path,
            format=format,
            user_speaker=speaker,
            config=config,
            settings=set_ or [],
            on_imported=lambda imported: tell_imported(user, imported),
        ),
        as_json=as_json,
    )
    _report(result, as_json=as_json, text=_EXTRACTED)


def _report(result: dict[str, Any], *, as_json: bool, text: str) -> None:
    if as_json:
        print_json(result)
    else:
        said = counted(result.get("statements", 0), "statement")
        out.print(text.format(said=said, **result), highlight=False, markup=False, soft_wrap=True)
