import re
import stat
from pathlib import Path

import pytest
from pydantic import SecretStr

from lorry.commands.up import addresses_text
from lorry.home import Home
from lorry.local.plan import PART_NAMES, Plan
from lorry.settings import LorrySettings


def plan(tmp_path: Path, **settings: object) -> Plan:
    return Plan(settings=LorrySettings(home=tmp_path, **settings), home=Home.open(tmp_path))


def test_everything_runs_here_unless_told_otherwise(tmp_path: Path) -> None:
    assert plan(tmp_path).local_parts == PART_NAMES


@pytest.mark.parametrize(
    ("setting", "part"),
    [
        ({"database_url": "postgresql+asyncpg://db/lorry"}, "postgres"),
        ({"s3_endpoint_url": "https://s3.example.org"}, "seaweedfs"),
        ({"registry_url": "https://registry.example.org"}, "registry"),
        ({"engine_url": "https://engine.example.org"}, "engine"),
    ],
)
def test_a_part_that_runs_elsewhere_is_not_started_here(tmp_path: Path, setting: dict[str, str], part: str) -> None:
    assert plan(tmp_path, **setting).local_parts == tuple(name for name in PART_NAMES if name != part)


def test_a_database_elsewhere_leaves_nothing_of_one_in_the_home(tmp_path: Path) -> None:
    url = "postgresql+asyncpg://db.internal/lorry"
    assert plan(tmp_path, database_url=url).database.database_url == url
    assert not list(tmp_path.iterdir())


def test_amazons_own_s3_needs_no_endpoint(tmp_path: Path) -> None:
    storage = plan(tmp_path, s3_endpoint_url="aws", s3_bucket="ours").storage
    assert (storage.s3_endpoint_url, storage.s3_bucket) == (None, "ours")


def test_the_engine_gets_no_credentials_of_database_or_store(tmp_path: Path) -> None:
    environment = plan(tmp_path).part("engine", base_directory=tmp_path).environment
    assert not [name for name in environment if "S3" in name or "DATABASE" in name]
    assert environment["LORRY_REGISTRY_ENGINE_TOKEN"]


def test_the_engine_gets_no_operators_token(tmp_path: Path) -> None:
    made = plan(tmp_path)
    environment = made.part("engine", base_directory=tmp_path).environment
    assert made.registry_token not in environment.values()
    registry = made.part("registry", base_directory=tmp_path).environment
    assert registry["LORRY_REGISTRY_ENGINE_TOKEN"] == environment["LORRY_REGISTRY_ENGINE_TOKEN"]
    assert registry["LORRY_REGISTRY_TOKEN"] != registry["LORRY_REGISTRY_ENGINE_TOKEN"]


def test_a_registry_elsewhere_may_know_one_token_only(tmp_path: Path) -> None:
    elsewhere = {"registry_url": "http://r", "registry_token": SecretStr("operator-token")}
    assert plan(tmp_path, **elsewhere).registry_engine_token == "operator-token"
    both = {**elsewhere, "registry_engine_token": SecretStr("engine-token")}
    assert plan(tmp_path, **both).registry_engine_token == "engine-token"


def test_the_gateway_asks_the_training_service_of_its_home_unless_another_is_named(tmp_path: Path) -> None:
    made = plan(tmp_path, port_base=18500)
    environment = made.part("gateway", base_directory=tmp_path).environment
    assert environment["LORRY_TRAINING_URL"] == "http://127.0.0.1:18503"
    assert environment["LORRY_TRAINING_TOKEN"] == (tmp_path / "secrets" / "training-token").read_text()
    elsewhere = plan(tmp_path, training_url="http://trainings:8083", training_token=SecretStr("t" * 20))
    environment = elsewhere.part("gateway", base_directory=tmp_path).environment
    assert environment["LORRY_TRAINING_URL"] == "http://trainings:8083"
    assert environment["LORRY_TRAINING_TOKEN"] == "t" * 20


def test_an_engine_keeps_its_name_in_its_home(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    assert plan(tmp_path).engine_id == plan(tmp_path).engine_id
    assert plan(tmp_path).engine_id != plan(tmp_path / "other").engine_id


def test_given_tokens_are_used_instead_of_our_own(tmp_path: Path) -> None:
    made = plan(tmp_path, registry_url="http://r", registry_token=SecretStr("given-token"))
    assert made.registry_token == "given-token"


def test_secrets_are_the_same_for_every_command_of_a_home(tmp_path: Path) -> None:
    assert plan(tmp_path).engine_token == plan(tmp_path).engine_token


def test_the_first_registry_of_a_home_gets_a_master_key_that_lasts(tmp_path: Path) -> None:
    environment = plan(tmp_path).part("registry", base_directory=tmp_path).environment
    file = Path(environment["LORRY_MASTER_KEY_FILE"])
    made = file.read_bytes()
    assert (file.parent, stat.S_IMODE(file.stat().st_mode)) == (tmp_path / "secrets", 0o600)
    plan(tmp_path).part("registry", base_directory=tmp_path)
    assert file.read_bytes() == made


def test_a_master_key_that_lies_elsewhere_is_not_made_here(tmp_path: Path) -> None:
    for settings in ({"master_key_file": tmp_path / "elsewhere.json"}, {"kms_key_id": "alias/lorry"}):
        environment = plan(tmp_path, **settings).part("registry", base_directory=tmp_path).environment
        assert {"LORRY_MASTER_KEY_FILE", "LORRY_KMS_KEY_ID"} & set(environment)
    assert not list(tmp_path.rglob("*master-key*"))
    assert not (tmp_path / "elsewhere.json").exists()


@pytest.mark.parametrize("base", [18300, 55000])
def test_the_ports_of_the_parts_lie_where_the_setting_says(tmp_path: Path, base: int) -> None:
    made = plan(tmp_path, port_base=base)
    names = ("registry", "engine", "extraction", "seaweedfs")
    ports = [port for name in names for port in made.part(name, base_directory=tmp_path).ports] + [made.training_port]
    assert len(set(ports)) == len(ports)
    assert set(ports) - set(range(base, base + 20)) == {base + 10_014}
    assert max(ports) <= 65_535


def test_what_to_type_after_lorry_up_stands_whole_in_its_line(tmp_path: Path) -> None:
    text = addresses_text(plan(tmp_path, gateway_port=18080), "lorry_" + "k" * 43)
    assert f"  export LORRY_URL=http://127.0.0.1:18080 LORRY_KEY=lorry_{'k' * 43}\n" in text
    assert text.count("k" * 43) == 1


def test_what_lorry_up_says_of_the_registry_reaches_it_without_printing_the_token(tmp_path: Path) -> None:
    made = plan(tmp_path, port_base=18500)
    text = addresses_text(made, "lorry_key")
    (found,) = re.findall(r'^  curl -H "Authorization: Bearer \$\(cat (\S+)\)" (\S+)/v1/bases$', text, re.MULTILINE)
    assert (Path(found[0]).parts[-2:], found[1]) == (("secrets", "registry-token"), "http://127.0.0.1:18500")
    assert made.registry_token not in text
    assert Path(found[0]).read_text() == made.registry_token
    given = plan(tmp_path, registry_token="x" * 20)
    assert "Bearer $LORRY_REGISTRY_TOKEN" in addresses_text(given, "lorry_key")


def test_what_lorry_up_says_of_the_engine_reaches_it_without_printing_the_token(tmp_path: Path) -> None:
    made = plan(tmp_path, port_base=18500)
    text = addresses_text(made, "lorry_key")
    pattern = r'^  curl -H "Authorization: Bearer \$\(cat (\S+)\)" (\S+)/lorry/residency$'
    (found,) = re.findall(pattern, text, re.MULTILINE)
    assert (Path(found[0]).parts[-2:], found[1]) == (("secrets", "engine-token"), "http://127.0.0.1:18501")
    assert made.engine_token not in text
    assert Path(found[0]).read_text() == made.engine_token
    given = plan(tmp_path, engine_token="x" * 20)
    assert "Bearer $LORRY_ENGINE_TOKEN" in addresses_text(given, "lorry_key")
