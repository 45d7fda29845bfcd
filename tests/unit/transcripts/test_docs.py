"""What the documents say of formats, reasons and kinds is what there is."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from transcripts.formats import FORMATS
from transcripts.redaction import RedactionSettings
from transcripts.redaction.settings import KINDS
from transcripts.tally import WHAT, Reason

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "transcripts.md").read_text()
README = (ROOT / "README.md").read_text()


def rows(page: str, heading: str) -> list[list[str]]:
    """Return the cells of the table under a heading row, codes without their ticks."""
    table = page.split(heading)[1].split("\n\n")[0]
    return [[cell.strip() for cell in line.strip("| ").split("|")] for line in table.splitlines()[2:]]


def test_every_reason_is_described_as_the_command_describes_it() -> None:
    described = {row[0].strip("`"): (row[1], row[2]) for row in rows(PAGE, "| reason | counts | of |")}
    assert described == {reason.value: WHAT[reason] for reason in Reason}


def test_every_format_is_described_in_both_pages() -> None:
    of_page = {name for row in rows(PAGE, "| format | the conversation | left out |") for name in code(row[0])}
    of_readme = {name for row in rows(README, "| format | how it is known |") for name in code(row[0])}
    assert of_page == of_readme == set(FORMATS)


def test_every_kind_and_switch_of_redaction_is_described() -> None:
    table = rows(PAGE, "| kind | found | switch |")
    assert {name for row in table for name in code(row[0])} == set(KINDS)
    told = set(code(" ".join(cell for row in table for cell in row)))
    assert set(RedactionSettings.model_fields) <= told


def test_the_example_of_settings_can_be_read() -> None:
    example = re.search(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    assert example is not None
    assert RedactionSettings.model_validate(yaml.safe_load(example[1])).patterns


def code(text: str) -> list[str]:
    """Return the names in ticks; of `name: value` the name."""
    return [found.split(":")[0] for found in re.findall(r"`([^`]+)`", text)]
