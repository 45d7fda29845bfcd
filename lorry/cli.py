"""The `lorry` command: what people type, sorted by what they want to do."""

from __future__ import annotations

import os
import warnings
from importlib.metadata import version
from typing import Annotated

import typer

from kit.telemetry import configure_logging
from lorry.commands import (
    adapter_lifecycle,
    adapters,
    api_keys,
    banks,
    bases,
    campaigns,
    demo,
    doctor,
    engines,
    erase,
    extractions,
    jobs,
    keys,
    pipeline,
    profiles,
    registry,
    review,
    status,
    transcripts,
    up,
)
from lorry.output import EXIT_CODES

app = typer.Typer(
    name="lorry",
    no_args_is_help=True,
    rich_markup_mode="markdown",  # in Rich's own markup, `[/ADAPTER]` would end a style that nobody began
    pretty_exceptions_show_locals=False,
    help="One LoRA adapter per user: from transcripts to served profiles.\n\n"
    "A first tour: `lorry demo`. With your own data: `lorry run USER FILE`, then `lorry up`.",
)

app.command(rich_help_panel="Run")(up.up)
app.command(rich_help_panel="Run")(demo.demo)
app.command(rich_help_panel="Run")(doctor.doctor)
app.command("import", rich_help_panel="Pipeline")(transcripts.import_)
app.command("build-dataset", rich_help_panel="Pipeline")(pipeline.build_dataset)
app.command(rich_help_panel="Pipeline")(review.review)
app.command(rich_help_panel="Pipeline")(pipeline.train)
app.command(rich_help_panel="Pipeline")(pipeline.extract)
app.command("run", rich_help_panel="Pipeline")(pipeline.run_all)
app.command(rich_help_panel="Look")(status.status)
app.command(rich_help_panel="Look")(profiles.profile)
adapters.app.add_typer(adapter_lifecycle.app)
app.add_typer(adapters.app, name="adapters", rich_help_panel="Look")
app.add_typer(banks.app, name="bank", rich_help_panel="Look")
app.add_typer(bases.app, name="bases", rich_help_panel="Look")
app.add_typer(engines.app, name="engines", rich_help_panel="Look")
app.command(rich_help_panel="Operate", epilog=EXIT_CODES)(erase.erase)
app.add_typer(jobs.app, name="jobs", rich_help_panel="Operate")
app.add_typer(campaigns.app, name="campaigns", rich_help_panel="Operate")
app.add_typer(extractions.app, name="extractions", rich_help_panel="Operate")
app.add_typer(registry.app, name="registry", rich_help_panel="Operate")
app.add_typer(keys.app, name="keys", rich_help_panel="Operate")
app.add_typer(api_keys.app, name="api-keys", rich_help_panel="Operate")


def _print_exit_codes_below_help(group: typer.Typer) -> None:
    """Have every command of a group, and the group itself, print under its help how it can end."""
    group.info.epilog = EXIT_CODES
    for command in group.registered_commands:
        command.epilog = EXIT_CODES
    for inner in group.registered_groups:
        if inner.typer_instance is not None:
            _print_exit_codes_below_help(inner.typer_instance)


_print_exit_codes_below_help(app)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"lorry {version('lorry')}")
        raise typer.Exit


@app.callback()
def _configure(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="log what happens to standard error")] = False,
    show_version: Annotated[
        bool, typer.Option("--version", help="print the version and exit", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    configure_logging("debug" if verbose else "error")
    if not verbose:
        warnings.simplefilter("ignore")  # third parties' deprecations are no news for a user of the command


def main() -> None:
    """Run the command line; what it and its parts write is for this account alone."""
    os.umask(0o077)
    app()


if __name__ == "__main__":
    main()
