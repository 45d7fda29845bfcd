"""Every setting of every process as one page: ``python -m lorry.settings_page > docs/settings.md``."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from kit.settings import Settings, variable
from lorry.container import ContainerSettings
from lorry.erasure.settings import ErasureSettings
from lorry.settings import LorrySettings
from registry.settings import RegistrySettings
from serving.engine.settings import EngineSettings
from serving.extraction.settings import ExtractionSettings
from serving.gateway.settings import GatewaySettings
from serving.jobs.settings import ExtractionWorkerSettings
from training.config import DatasetConfig, TrainingConfig
from training.jobs.settings import TrainingServiceSettings, WorkerSettings
from training.policy import GatePolicy
from training.writers.settings import WriterSettings

PROCESSES: dict[str, type[Settings]] = {
    "The `lorry` command": LorrySettings,
    "The registry (`python -m registry`)": RegistrySettings,
    "An engine (`python -m serving.engine`)": EngineSettings,
    "The gateway (`python -m serving.gateway`)": GatewaySettings,
    "A training worker (`python -m training.jobs`)": WorkerSettings,
    "Question writers (in a training worker and the command)": WriterSettings,
    "Erasures (`python -m lorry.erasure`)": ErasureSettings,
    "The training service (`python -m training.service`)": TrainingServiceSettings,
    "An extraction worker (`python -m serving.jobs`)": ExtractionWorkerSettings,
    "Extraction (in the gateway and the command)": ExtractionSettings,
    "A container of Lorry's images (`python -m lorry.container`), beside its role's": ContainerSettings,
}


def settings_page() -> str:
    """Return the page as Markdown."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# Settings"
    yield ""
    yield "Each is an environment variable, read once when its process starts. `lorry up` derives those of the parts it"
    yield "starts; what you set besides reaches them unchanged. `python -m lorry.settings_page` writes this page."
    for title, settings in PROCESSES.items():
        yield from ("", f"## {title}", "", "| variable | default | meaning |", "|---|---|---|")
        for name, field in settings.model_fields.items():
            yield f"| `{variable(name)}` | {_default(field)} | {field.description} |"
    yield from _training_lines()


def _training_lines() -> Iterator[str]:
    yield from ("", "## A training (`--set key=value`, or a line of the file of `--config`)", "")
    yield "In a file, the keys of the dataset stand below `dataset:`, those of the gate below `gate:`. A run keeps the"
    yield "complete configuration, with each value's origin, in `config.resolved.yaml`; the bounds that a version was"
    yield "judged by stand in its report. The base is `LORRY_BASE_MODEL`, here as for the engine."
    yield from ("", "| key | default | meaning |", "|---|---|---|")
    for name, field in TrainingConfig.model_fields.items():
        if name != "base":
            yield f"| `{name}` | {_default(field)} | {field.description} |"
    for prefix, model in (("dataset", DatasetConfig), ("gate", GatePolicy)):
        for name, field in model.model_fields.items():
            yield f"| `{prefix}.{name}` | {_default(field)} | {field.description} |"


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return "unset"
    if field.default is PydanticUndefined:
        return "**required**"
    if field.default is None or isinstance(field.default, SecretStr) or field.default == "":
        return "unset"
    return f"`{field.default}`"


if __name__ == "__main__":
    sys.stdout.write(settings_page())
