"""What a registry refuses to be told."""

from __future__ import annotations

import pytest

from kit.errors import SettingsInvalid
from registry.settings import RegistrySettings


def test_engines_and_operators_may_not_share_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORRY_DATABASE_URL", "postgresql+asyncpg://a:b@127.0.0.1/c")
    monkeypatch.setenv("LORRY_REGISTRY_TOKEN", "one-token-for-everybody")
    monkeypatch.setenv("LORRY_REGISTRY_ENGINE_TOKEN", "one-token-for-everybody")
    with pytest.raises(SettingsInvalid, match="every engine would be an operator") as caught:
        RegistrySettings.read()
    assert "one-token-for-everybody" not in str(caught.value)
    monkeypatch.setenv("LORRY_REGISTRY_ENGINE_TOKEN", "another-token-for-engines")
    RegistrySettings.read()
