"""`lorry jobs serve`: the training service of this machine, over HTTP."""

from __future__ import annotations

import shlex
from typing import Annotated, Any

import typer
from pydantic import SecretStr

from lorry.context import Context, open_context
from lorry.output import out, run
from lorry.patience import kept
from training.jobs.settings import TrainingServiceSettings


def serve(
    port: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=65_535,
            help="port to listen on, on this machine alone; LORRY_PORT_BASE + 3, where the gateway of `lorry up` asks",
        ),
    ] = None,
) -> None:
    """Serve trainings over HTTP until Ctrl-C: submit, look, steer, follow events (docs/jobs.md).

    Workers do what is asked: run `lorry jobs work` beside it. The gateway of `lorry up` hands trainings to it for as
    long as it runs. PostgreSQL is started when it does not run, and again when it ends by itself.
    """
    run(_serve(port))


async def _serve(given: int | None) -> None:
    import uvicorn  # slow to import, and most commands serve nothing

    from training.service.app import create_app

    async with open_context() as context:
        port = given or context.plan.training_port
        settings = service_settings(context, port=port)
        app, host = create_app(settings), settings.training_host
        server = uvicorn.Server(uvicorn.Config(app, host=host, port=port, log_config=None, access_log=False))
        token = shlex.quote(str(context.home.path / "secrets" / "training-token"))
        out.file.write(
            f"export TRAINING_URL=http://{host}:{port} TRAINING_TOKEN=$(cat {token})\n"
            'curl -H "Authorization: Bearer $TRAINING_TOKEN" "$TRAINING_URL/v1/trainings"\n'
        )
        out.file.flush()
        async with kept(context):
            await server.serve()


def service_settings(context: Context, *, port: int) -> TrainingServiceSettings:
    """Return the settings of a training service on this machine; its token is made once and kept in the home."""
    plan = context.plan
    values: dict[str, Any] = {
        "database_url": plan.database.database_url,
        "registry_url": plan.registry_url,
        "registry_token": SecretStr(plan.registry_token),
        "training_token": SecretStr(plan.home.secret("training-token")),
        "training_host": "127.0.0.1",
        "training_port": port,
        "log_level": plan.settings.log_level,
    }
    return TrainingServiceSettings(**values)
