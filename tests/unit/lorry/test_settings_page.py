from pathlib import Path

import pytest

from kit.settings import Settings
from lorry.settings_page import PROCESSES, settings_page

PAGE = Path(__file__).resolve().parents[3] / "docs" / "settings.md"


def test_the_page_of_settings_is_current() -> None:
    assert PAGE.read_text() == settings_page(), "run: python -m lorry.settings_page > docs/settings.md"


@pytest.mark.parametrize("settings", PROCESSES.values(), ids=lambda settings: settings.__name__)
def test_every_setting_says_what_it_means(settings: type[Settings]) -> None:
    silent = [name for name, field in settings.model_fields.items() if not field.description]
    assert not silent
