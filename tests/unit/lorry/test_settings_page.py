from pathlib import Path

import pytest

from kit.settings import Settings
from lorry.settings import LorrySettings
from lorry.settings_page import PROCESSES, settings_page
from registry.settings import RegistrySettings
from serving.engine.settings import EngineSettings
from serving.gateway.settings import GatewaySettings
from training.config import DatasetConfig, TrainingConfig

PAGE = Path(__file__).resolve().parents[3] / "docs" / "settings.md"


def test_the_page_of_settings_is_current() -> None:
    assert PAGE.read_text() == settings_page(), "run: python -m lorry.settings_page > docs/settings.md"


@pytest.mark.parametrize("settings", PROCESSES.values(), ids=lambda settings: settings.__name__)
def test_every_setting_says_what_it_means(settings: type[Settings]) -> None:
    silent = [name for name, field in settings.model_fields.items() if not field.description]
    assert not silent


def test_every_key_of_a_training_is_on_the_page() -> None:
    keys = [*TrainingConfig.model_fields, *(f"dataset.{name}" for name in DatasetConfig.model_fields)]
    missing = [key for key in keys if f"\n| `{key}` |" not in settings_page()]
    assert missing == ["base"]


def test_services_that_start_side_by_side_do_not_meet() -> None:
    ports = [RegistrySettings.model_fields["registry_port"], GatewaySettings.model_fields["gateway_port"]]
    assert len({field.default for field in [*ports, EngineSettings.model_fields["engine_port"]]}) == 3


def test_what_the_registry_takes_the_engine_serves() -> None:
    limits = [RegistrySettings.model_fields["registry_max_rank"], EngineSettings.model_fields["max_lora_rank"]]
    assert len({field.default for field in [*limits, LorrySettings.model_fields["max_lora_rank"]]}) == 1


def test_a_variable_means_one_thing_in_the_command_and_in_the_gateway() -> None:
    own, gateway = LorrySettings.model_fields, GatewaySettings.model_fields
    assert "engine_timeout_seconds" in gateway
    assert "engine_timeout_seconds" not in own
