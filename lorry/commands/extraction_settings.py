"""What the commands of batch extractions run with, derived from the home's plan."""

from __future__ import annotations

from typing import Any

from lorry.context import Context
from serving.jobs.settings import BatchSettings, ExtractionWorkerSettings


def batch_settings(context: Context) -> BatchSettings:
    """Return what submitting batches and reading results takes on this machine."""
    return BatchSettings(**_shared(context))


def worker_settings(context: Context, *, worker_id: str | None = None) -> ExtractionWorkerSettings:
    """Return the settings of a worker on this machine."""
    plan = context.plan
    values: dict[str, Any] = {
        **_shared(context),
        "database_url": plan.database.database_url,
        "registry_url": plan.registry_url,
        "registry_token": plan.registry_token,
        "engine_url": plan.engine_url,
        "engine_token": plan.engine_token,
        "extraction_worker_port": 0,  # any: another worker of this machine may have the usual one
        "log_level": context.settings.log_level,
    }
    if worker_id is not None:
        values["worker_id"] = worker_id
    return ExtractionWorkerSettings(**values)


def _shared(context: Context) -> dict[str, Any]:
    storage = context.plan.storage.model_dump(exclude={"log_level"}, exclude_unset=True)
    return {**storage, "extraction_webhook_key": context.plan.webhook_key}
