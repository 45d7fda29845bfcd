"""What a person chose, in the form in which it is queued for workers, who may be on other machines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lorry.settings import LorrySettings
from training.config import ResolvedConfig
from training.policy import NONE


def base_name(settings: LorrySettings) -> str:
    """Return how jobs name the base: a directory as a whole path, so that it means the same to every worker here."""
    path = Path(settings.base_model).expanduser()
    return str(path.resolve()) if path.is_dir() else settings.base_model


def chosen_settings(resolved: ResolvedConfig) -> dict[str, Any]:
    """Return, by key, the settings that a person chose; the rest is every worker's own default."""
    bounds = resolved.gate.model_dump(mode="json")
    values = {
        **resolved.training.model_dump(mode="json"),
        **{f"dataset.{key}": value for key, value in resolved.dataset.model_dump(mode="json").items()},
        **{f"gate.{key}": NONE if value is None else value for key, value in bounds.items()},
    }
    chosen = {key for key, origin in resolved.origins.items() if origin in {"file", "argument"}}
    return {key: value for key, value in values.items() if key in chosen}
