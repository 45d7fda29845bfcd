"""Every setting of every process as one page: ``python -m lorry.settings_page > docs/settings.md``."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from kit.settings import Settings
from lorry.settings import LorrySettings
from registry.settings import RegistrySettings
from serving.engine.settings import EngineSettings
from serving.extraction.settings import ExtractionSettings
from serving.gateway.settings import GatewaySettings

PROCESSES: dict[str, type[Settings]] = {
    "The `lorry` command": LorrySettings,
    "The registry (`python -m registry`)": RegistrySettings,
    "An engine (`python -m serving.engine`)": EngineSettings,
    "The gateway (`python -m serving.gateway`)": GatewaySettings,
    "Extraction (in the gateway and the command)": ExtractionSettings,
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
            yield f"| `LORRY_{name.upper()}` | {_default(field)} | {field.description} |"


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "**required**"
    if field.default is None or isinstance(field.default, SecretStr) or field.default == "":
        return "unset"
    return f"`{field.default}`"


if __name__ == "__main__":
    sys.stdout.write(settings_page())
