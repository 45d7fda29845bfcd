"""docs/benchmarks.md names each benchmark once, says each thing once, and its tables are whole."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from bench.__main__ import names

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "benchmarks.md").read_text()
TABLES = [block.splitlines() for block in PAGE.split("\n\n") if block.startswith("|")]


def test_each_benchmark_is_described_once() -> None:
    described = [re.findall(r"`(\w+)`", row)[0] for row in TABLES[0][2:]]
    assert sorted(described) == names()


def test_each_benchmark_has_a_figure_or_says_that_it_has_none() -> None:
    reached = {name for row in TABLES[1][2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert [name for name in names() if name not in reached] == []


def test_nothing_is_said_twice() -> None:
    lines = Counter(line for line in PAGE.splitlines() if line and not re.fullmatch(r"\|[-|]+\|", line))
    assert [line for line, times in lines.items() if times > 1] == []


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table[0])
def test_every_row_has_the_columns_of_its_table(table: list[str]) -> None:
    assert {len(re.split(r"(?<!\\)\|", row)) for row in table} == {len(table[0].split("|"))}
