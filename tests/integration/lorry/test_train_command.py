"""`lorry train` as a process, on a base of two layers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.support.command import Lorry

QUICK = ("--set", "steps=3", "--set", "batch_size=2", "--set", "max_length=96", "--set", "threads=1")


@pytest.fixture
async def lorry(lorry: Lorry) -> Lorry:
    await lorry.json("build-dataset", "ada")
    return lorry


async def test_a_teacher_is_shown_the_transcripts_that_the_dataset_was_made_from(lorry: Lorry) -> None:
    ran = await lorry.json("train", "ada", "--no-publish", *QUICK, "--set", "objective=distillation")
    run = Path(ran["ada"]["run_directory"])
    record = json.loads((run / "training.json").read_bytes())
    assert record["steps"] == 3
    assert all(loss >= 0 for loss in record["losses"])  # divergences from a teacher
    assert max(record["losses"]) < 3  # which is the same base: nowhere near what a random model pays for words


async def test_everything_that_the_gate_asks_is_measured_and_stored_with_the_version(
    lorry: Lorry, tmp_path: Path
) -> None:
    secret = json.dumps({"messages": [{"role": "user", "content": "Write to ada.lovelace@example.org, please do!"}]})
    path = tmp_path / "more.jsonl"
    path.write_text(secret + "\n")
    await lorry.json("import", "ada", str(path))
    await lorry.json("build-dataset", "ada")
    trained = (await lorry.json("train", "ada", *QUICK))["ada"]
    shown = await lorry.json("adapters", "show", "ada@1")
    report = shown["manifest"]["evaluation"]
    assert report == trained["evaluation"]
    assert report["held_out"]["profile_losses"]
    assert report["held_out"]["other_losses"] == [], "nobody else has an adapter"
    assert report["general"]["set_digest"]
    assert report["leaks"]["secrets"] == 1, "what redaction hid is tried"
    assert report["leaks"]["secrets_extracted"] == 0
    reasons = " ".join(report["gate"]["reasons"])
    for asked in ("general text", "secrets that come out", "trained span"):
        assert asked in reasons


async def test_what_a_training_takes_of_the_device_is_counted_once(lorry: Lorry) -> None:
    ran = (await lorry.json("train", "ada", "--no-publish", *QUICK))["ada"]
    record = json.loads((Path(ran["run_directory"]) / "training.json").read_bytes())
    costs = await lorry.json("jobs", "costs", "--by", "kind")
    assert [(each["of"], each["is_estimate"]) for each in costs] == [("evaluate", False), ("train", False)]
    assert all(each["device_seconds"] > 0 and each["dollars"] == 0 for each in costs)
    assert [each["trained_tokens"] for each in costs] == [0, record["tokens"]]
    (ada,) = await lorry.json("jobs", "costs")
    assert (ada["of"], ada["device_seconds"]) == ("ada", pytest.approx(sum(each["device_seconds"] for each in costs)))
    assert (await lorry.json("train", "ada", "--no-publish", *QUICK))["ada"] == ran
    assert await lorry.json("jobs", "costs", "--by", "kind") == costs, "what was done before took nothing"


async def test_an_evaluation_is_made_again_only_of_something_else(lorry: Lorry) -> None:
    first = (await lorry.json("train", "ada", "--no-publish", *QUICK))["ada"]
    path = Path(first["run_directory"]) / "evaluation.json"
    kept = json.loads(path.read_bytes())
    path.write_text(json.dumps({**kept, "own_loss": 0.25}))
    assert (await lorry.json("train", "ada", "--no-publish", *QUICK))["ada"]["evaluation"]["held_out"][
        "own_loss"
    ] == 0.25
    for other in ({**kept, "own_loss": 0.25, "inputs": "of others"}, {"inputs": kept["inputs"]}):
        path.write_text(json.dumps(other))
        assert (await lorry.json("train", "ada", "--no-publish", *QUICK))["ada"] == first
        assert json.loads(path.read_bytes()) == kept


async def test_what_is_redacted_since_has_the_evaluation_made_again(lorry: Lorry, tmp_path: Path) -> None:
    before = (await lorry.json("train", "ada", "--no-publish", *QUICK))["ada"]["evaluation"]
    redaction = tmp_path / "redaction.yaml"
    redaction.write_text("names: [trumpet]\n")
    lorry.environment["LORRY_REDACTION_FILE"] = str(redaction)
    after = (await lorry.json("train", "ada", "--no-publish", *QUICK))["ada"]["evaluation"]
    assert before["leaks"]["secrets"] == 0
    assert after["leaks"]["secrets"] > 0


async def test_a_setting_of_the_dataset_that_it_was_not_built_with_is_refused(lorry: Lorry) -> None:
    code, _, said = await lorry("train", "ada", "--no-publish", *QUICK, "--set", "dataset.max_examples=9")
    assert code == 2
    assert "dataset.max_examples is to be 9, and the dataset of ada was built with" in said
    assert "lorry build-dataset ada --set dataset.max_examples=9" in said
    await lorry.json("build-dataset", "ada", "--set", "dataset.max_examples=9")
    ran = await lorry.json("train", "ada", "--no-publish", *QUICK)
    config = yaml.safe_load((Path(ran["ada"]["run_directory"]) / "config.resolved.yaml").read_text())
    assert config["dataset"]["max_examples"] == 9
    assert config["origins"]["dataset.max_examples"] == "dataset"


async def test_a_live_version_that_does_not_pass_a_later_gate_is_said_to(lorry: Lorry) -> None:
    code, said, _ = await lorry("train", "ada", *QUICK, "--set", "gate.min_gain_nats=-100")
    assert (code, "version 1, live" in said) == (0, True)
    code, said, told = await lorry("train", "ada", *QUICK, "--set", "gate.require_identified=yes")
    assert code == 0
    assert "version 1, live as before, without passing this gate" in said
    assert "ada: version 1 stays live, and does not pass now: there was no other user's adapter" in told
    _, shown, _ = await lorry("adapters", "show", "ada@1")
    assert "later report: gate.passed" in shown


async def test_a_training_begins_with_what_is_shared_and_anew_when_another_version_is_live(
    lorry: Lorry, tmp_path: Path
) -> None:
    """As docs/training.md says; the home keeps no copy of what was begun with."""
    begun = []
    for steps in ("steps=3", "steps=4"):
        common = await lorry.json("train", "ada", "--no-publish", *QUICK, "--set", steps)
        await lorry.json(
            "adapters", "push", common["ada"]["adapter_directory"], "--shared", "--adapter", "common", "--live"
        )
        begun.append((await lorry.json("train", "ada", *QUICK, "--set", "start=shared/common"))["ada"])
    assert len({each["run_directory"] for each in begun}) == 2
    for number, each in enumerate(begun, 1):
        shown = (await lorry.json("adapters", "show", f"ada@{number}"))["manifest"]
        assert shown["lineage"]["hyperparameters"]["start"] == f"shared/common@{number}"
        assert each["evaluation"]["held_out"]["start_loss"] > 0
        assert any("of the adapter that it began with" in reason for reason in each["evaluation"]["gate"]["reasons"])
    assert list((tmp_path / "home" / "starts").iterdir()) == []
    code, _, said = await lorry("train", "ada", "--no-publish", *QUICK, "--set", "start=shared/nothing")
    assert (code, "start" in said) == (2, True)
