"""What a benchmark's trainings begin with holds nothing of whom it measures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench import common_start
from bench.common_start import build_common_dataset, common_config
from training.dataset import Dataset

CONFIG = common_config(**{"dataset.min_held_out": 1, "dataset.held_out_share": 0.2})
MEASURED = {"mia"}


def said(who: str, what: str) -> dict[str, Any]:
    return {"text": what, "timestamp": "2020-01-01T00:00:00", "sender": who}


def talk(one: str, other: str, number: int) -> dict[str, Any]:
    """Two people who say their names over and over."""
    words = "and then we talked for a long while about boats and rivers and so on"
    bursts = [[said(who, f"{who} speaks in turn {number} {turn} {words}")] for turn in range(6) for who in (one, other)]
    return {"messages": bursts, "prompt": ""}


def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> Dataset:
    pairs = [("ann", "bob"), ("ann", "mia"), ("cid", "ann"), ("mia", "cid"), ("bob", "cid")] * 4
    file = tmp_path / "dataset.json"
    file.write_text(json.dumps({f"c{n}": talk(one, other, n) for n, (one, other) in enumerate(pairs)}))
    monkeypatch.setattr(common_start, "dataset_path", lambda: file)
    return build_common_dataset(tmp_path / name, without=MEASURED, config=CONFIG)


def test_nobody_who_is_measured_has_a_word_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = build(tmp_path, monkeypatch, "dataset")
    told = " ".join(
        text
        for each in (*dataset.train, *dataset.held_out)
        for text in (each.completion, *(turn.content for turn in each.prompt))
    )
    assert "mia" not in told
    assert all(f"{who} speaks" in told for who in ("ann", "bob", "cid"))
    assert dataset.counts["statement"] == dataset.counts["negative"] == 0


def test_it_is_the_same_one_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert build(tmp_path, monkeypatch, "one").digest == build(tmp_path, monkeypatch, "other").digest
