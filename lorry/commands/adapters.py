"""`lorry adapters`: what the registry holds, for people and for scripts."""

from __future__ import annotations

import typer

from lorry.commands import adapter_files, adapters_read

app = typer.Typer(no_args_is_help=True, help="List, show, compare, push, pull and verify adapters of the registry.")


app.command("list")(adapters_read.list_)
app.command()(adapters_read.show)
app.command()(adapters_read.versions)
app.command()(adapters_read.diff)
app.command()(adapters_read.lineage)
app.command()(adapter_files.push)
app.command()(adapter_files.pull)
app.command()(adapter_files.verify)
