"""The pipeline's commands as processes, up to where training would begin: exit codes, JSON, advice."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest
from filelock import FileLock

from kit.database import Database
from kit.settings import DatabaseSettings
from tests.support.adapters import BASE
from tests.support.catalog import OTHER_BASE, add_bases, add_version
from tests.support.command import Lorry
from tests.support.nursery import Nursery
from tests.support.people import write_transcripts
from tests.support.registry_server import registry_settings, registry_url

__all__ = ["registry_settings", "registry_url"]


@pytest.fixture
def lorry(nursery: Nursery, registry_url: str, database_settings: DatabaseSettings, tmp_path: Path) -> Lorry:
    return Lorry(
        nursery, registry_url=registry_url, database_url=database_settings.database_url, home=tmp_path / "home"
    )


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (("status", "nobody"), "lorry import nobody FILE"),
        (("profile", "nobody"), "lorry run nobody FILE"),
        (("build-dataset", "nobody"), "lorry import nobody FILE"),
        (("train", "nobody"), "lorry build-dataset nobody"),
        (("adapters", "push", "no-directory", "--user", "nobody"), "no-directory"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
async def test_what_is_not_there_ends_with_3_and_advice(lorry: Lorry, arguments: tuple[str, ...], advice: str) -> None:
    code, told, complained = await lorry(*arguments)
    assert (code, told) == (3, ""), complained
    assert advice in complained


async def test_an_extraction_without_an_adapter_starts_no_engine(lorry: Lorry) -> None:
    code, _, complained = await lorry("extract", "nobody")
    assert code == 3, complained
    assert "starting the engine" not in complained


async def test_a_user_with_a_live_adapter_is_told_to_extract(lorry: Lorry, database: Database) -> None:
    await add_bases(database)
    await add_version(database, user="ann", live=True)
    code, _, complained = await lorry("profile", "ann")
    assert (code, "lorry extract ann" in complained) == (3, True), complained
    assert (await lorry.json("status", "ann"))[0]["version"] == 1


async def test_import_and_dataset_say_what_and_where(lorry: Lorry, tmp_path: Path) -> None:
    path = write_transcripts(tmp_path / "ada.jsonl")
    imported = await lorry.json("import", "ada", str(path))
    assert datetime.fromisoformat(imported["last_imported_at"]).tzinfo is not None
    built = await lorry.json("build-dataset", "ada")
    assert json.loads((Path(built["directory"]) / "dataset.json").read_bytes())["digest"] == built["digest"]
    code, told, complained = await lorry("build-dataset", "ada")
    assert (code, built["directory"] in told) == (0, True), complained


async def test_the_evaluation_of_a_version_is_shown(lorry: Lorry, database: Database) -> None:
    await add_bases(database)
    report = {
        "held_out": {"base_loss": 3.5, "own_loss": 2.25, "gain": 1.25, "other_losses": [3.0]},
        "gate": {"passed": True, "reasons": ["held-out loss beats the base's"], "policy": {"min_gain_nats": 0.0}},
    }
    await add_version(database, user="ann", live=True, evaluation=report)
    code, told, complained = await lorry("adapters", "show", "ann")
    assert code == 0, complained
    for words in ("held_out.base_loss", "3.5000", "2.2500", "1.2500", "gate.passed", "yes", "beats the base's"):
        assert words in told


async def test_status_fits_80_columns_and_breaks_no_name(lorry: Lorry, database: Database, tmp_path: Path) -> None:
    path = write_transcripts(tmp_path / "ada.jsonl")
    await lorry.json("import", "chitchat-0123abcd", str(path))
    await lorry.json("import", "ada", str(path))
    await add_bases(database)
    held_out = {"base_loss": 3.5, "own_loss": 2.25}
    await add_version(database, user="chitchat-0123abcd", live=True, evaluation={"held_out": held_out})
    code, told, complained = await lorry("status", columns=80)
    assert code == 0, complained
    assert max(map(len, told.splitlines())) <= 80
    for cell in ("chitchat-0123abcd", "24 new", "3.50 → 2.25", "no adapter"):
        assert cell in told


async def test_status_says_of_another_base_by_its_weights_and_beside_what_else_is_stale(
    lorry: Lorry, database: Database, tmp_path: Path
) -> None:
    await lorry.json("import", "ada", str(write_transcripts(tmp_path / "ada.jsonl")))
    await add_bases(database)
    await add_version(database, user="ada", live=True)

    async def ask(base: str) -> tuple[str | None, str]:
        lorry.environment["LORRY_BASE_MODEL"] = base
        (status,) = await lorry.json("status", "ada")
        assert status["base"] == BASE.id
        return status["wanted_base"], status["stale"]

    other = ("next", f"trained for {BASE.id}, wanted is next; 24 transcripts since the training")
    assert await ask("/models/next") == other, "nothing is known of it but its name"
    await add_bases(database, OTHER_BASE.model_copy(update={"id": "next"}), BASE.model_copy(update={"id": "moved"}))
    assert await ask("/models/next") == other
    assert await ask("/models/moved") == (None, "24 transcripts since the training"), "the same one, called otherwise"
    lorry.environment["LORRY_BASE_MODEL"] = "/models/next"
    code, told, complained = await lorry("status", columns=80)
    assert (code, "24 new, base" in told) == (0, True), complained
    assert f"ada: trained for {BASE.id}, wanted is next\n" in told


async def test_status_counts_a_conversation_that_went_on_once(lorry: Lorry, tmp_path: Path) -> None:
    path = tmp_path / "talk.txt"
    for said in ("ann: I keep bees.\nbob: How many?\n", "ann: I keep bees.\nbob: How many?\nann: Four hives.\n"):
        path.write_text(said)
        await lorry.json("import", "ann", str(path), "--user-speaker", "ann")
    (status,) = await lorry.json("status", "ann")
    assert (status["transcripts"], status["own_words"], status["new_transcripts"]) == (2, 5, 1)


async def test_an_empty_list_says_so(lorry: Lorry) -> None:
    code, told, complained = await lorry("adapters", "list")
    assert (code, told, complained.strip()) == (0, "", "no adapters found")


async def test_old_datasets_are_removed_but_not_what_a_version_was_trained_on(
    lorry: Lorry, database: Database, tmp_path: Path
) -> None:
    await lorry.json("import", "ada", str(write_transcripts(tmp_path / "ada.jsonl")))
    lorry.environment["LORRY_DATASETS_KEPT"] = "2"

    async def build(seed: int) -> dict[str, str]:
        built: dict[str, str] = await lorry.json("build-dataset", "ada", "--set", f"seed={seed}")
        return built

    first = await build(1)
    await add_bases(database)
    await add_version(database, user="ada", dataset=first["digest"])
    built = [first, *[await build(seed) for seed in (2, 3, 4)]]
    folder = Path(first["directory"]).parent
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {
        Path(each["directory"]).name for each in (first, *built[2:])
    }
    await build(3)
    await build(5)
    there = [Path(each["directory"]).is_dir() for each in built]
    assert there == [True, False, True, False], "what was built again was among the last two"


async def test_nothing_is_removed_while_a_training_of_the_user_runs(lorry: Lorry, tmp_path: Path) -> None:
    await lorry.json("import", "ada", str(write_transcripts(tmp_path / "ada.jsonl")))
    lorry.environment["LORRY_DATASETS_KEPT"] = "1"
    first = await lorry.json("build-dataset", "ada", "--set", "seed=1")
    runs = tmp_path / "home" / "runs" / "default" / "ada"
    runs.mkdir(parents=True)
    with FileLock(runs / ".0123456789abcdef.lock"):
        second = await lorry.json("build-dataset", "ada", "--set", "seed=2")
        assert Path(first["directory"]).is_dir()
    third = await lorry.json("build-dataset", "ada", "--set", "seed=3")
    assert [Path(each["directory"]).is_dir() for each in (first, second, third)] == [False, False, True]


async def test_who_has_a_job_is_not_trained_beside_it(lorry: Lorry, tmp_path: Path) -> None:
    path = write_transcripts(tmp_path / "ada.jsonl")
    await lorry.json("import", "ada", str(path))
    await lorry.json("build-dataset", "ada")
    (job,) = await lorry.json("jobs", "submit", "ada")
    run = ("run", "ada", str(tmp_path / "nothing.jsonl"))
    for command, state, way_out, then in (
        (("train", "bob", "ada"), "queued", "events", "pause"),
        (run, "paused", "resume", "cancel"),
    ):
        code, told, complained = await lorry(*command)
        assert (code, told) == (4, ""), (command, complained)
        assert f"job {job['id']} trains ada, and is {state}; one training per user at a time" in complained
        assert f"lorry jobs {way_out} {job['id']}" in complained
        assert f"lorry jobs cancel {job['id']}" in complained
        await lorry.json("jobs", then, job["id"])
    code, _, complained = await lorry(*run)
    assert (code, "there is no file" in complained) == (3, True), complained


async def test_an_estimate_scores_nothing_and_says_so(lorry: Lorry) -> None:
    code, told, complained = await lorry("build-dataset", "ada", "--estimate", "--score")
    assert (code, told) == (2, "")
    assert "--estimate only says what writing would cost" in " ".join(complained.replace("│", " ").split())
