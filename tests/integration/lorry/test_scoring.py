"""`lorry build-dataset --score` as a process, on a base of two layers."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

from tests.support.command import Lorry

_ASKS = "asking the base about examples"


def losses(review: dict[str, Any]) -> dict[str, float]:
    return {pair["id"]: pair["base_loss"] for pair in review["pairs"] if pair["base_loss"] is not None}


async def test_the_base_is_asked_only_where_somebody_wants_it(lorry: Lorry, tmp_path: Path) -> None:
    base, lorry.environment["LORRY_BASE_MODEL"] = lorry.environment["LORRY_BASE_MODEL"], str(tmp_path / "nowhere")
    plain = await lorry.json("build-dataset", "ada")
    assert plain["quality"]["scored"] == 0
    assert losses(await lorry.json("review", "ada")) == {}
    code, _, complained = await lorry("build-dataset", "ada", "--score")
    assert code == 2, complained
    assert "nowhere" in complained
    lorry.environment["LORRY_BASE_MODEL"] = base
    code, told, complained = await lorry("build-dataset", "ada", "--score")
    assert code == 0, complained
    assert f"the base was asked about {plain['train']} examples; `lorry review ada --show ID` has its score" in told
    assert f"{_ASKS} …" in complained
    scored = await lorry.json("review", "ada")
    assert scored["digest"] == plain["digest"], "nothing is dropped for it unless that is set"
    assert set(losses(scored)) == {pair["id"] for pair in scored["pairs"] if pair["status"] == "kept"}
    assert sum(scored["quality"]["nats"].values()) == plain["train"]
    page = (Path(scored["directory"]) / "quality.md").read_text()
    assert "The base model was asked only about pairs that were chosen" in page
    name, loss = next(iter(losses(scored).items()))
    _, told, _ = await lorry("review", "ada", "--show", name)
    assert f"{loss:.2f} nats a token under the base" in told
    code, _, complained = await lorry("build-dataset", "ada", "--score", "--set", "dataset.on_platitude=ignore")
    assert code == 2
    assert "set it to warn or drop" in " ".join(complained.split())


async def test_a_review_keeps_the_scores_and_what_was_dropped_for_them_and_asks_nothing(
    lorry: Lorry, tmp_path: Path
) -> None:
    known = losses((await lorry.json("build-dataset", "ada", "--score")) and await lorry.json("review", "ada"))
    drops = ("--set", "dataset.on_platitude=drop", "--set", f"dataset.platitude_nats={median(known.values())}")
    built = await lorry.json("build-dataset", "ada", "--score", *drops)
    assert built["quality"]["dropped"]["platitude"] > 0
    before = await lorry.json("review", "ada")
    assert before["digest"] != (await lorry.json("build-dataset", "ada", *drops))["digest"]
    assert (await lorry.json("build-dataset", "ada", "--score", *drops))["directory"] == before["directory"]
    gone = next(pair["id"] for pair in before["pairs"] if pair["status"] == "kept")
    base, lorry.environment["LORRY_BASE_MODEL"] = lorry.environment["LORRY_BASE_MODEL"], str(tmp_path / "nowhere")
    after = await lorry.json("review", "ada", "--drop", gone)
    assert after["train"] == before["train"] - 1
    assert losses(after) == losses(before)
    lorry.environment["LORRY_BASE_MODEL"] = base
    again = await lorry.json("build-dataset", "ada", "--score", *drops)
    assert again["directory"] == after["directory"], "what was asked is found again"
