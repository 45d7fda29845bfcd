"""A quality report for people: a Markdown page, and a picture of lengths and losses (SVG)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape

from kit.words import tallied
from training.quality.report import QualityReport, Section

_TITLES = {
    "duplicate": "Repeated pairs",
    "near_duplicate": "Nearly repeated pairs",
    "leak": "Known from a held-out reply",
    "platitude": "Given by the base model itself",
    "too_short": "Very short answers",
    "imbalance": "Out of balance",
}
_DONE = {"drop": "dropped", "warn": "kept; look at them", "ignore": "not looked for"}
_BAR_HEIGHT, _BAR_GAP, _LABEL_WIDTH, _WIDTH = 16, 4, 60, 420


def to_markdown(report: QualityReport) -> str:
    """Return the page."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: QualityReport) -> Iterator[str]:
    yield from ("# Quality of the examples", "")
    yield f"{report.examined} pairs were written and looked at; {report.kept} of them are trained on."
    yield from ("", "| finding | count | what was done |", "|---|---:|---|")
    for section in report.sections:
        yield f"| {_TITLES[section.problem]} | {section.count} | {_DONE[section.action]} |"
    if not report.nats:
        yield from ("", "The base model was not asked: nothing is known about platitudes.")
    else:
        why = "too long for it, or chosen when a held-out reply had been dropped"
        long = f"; {report.unscored} of them have no score ({why})" if report.unscored else ""
        asked = "The base model was asked only about pairs that were chosen to be trained on, as they were written"
        yield from ("", f"{asked}{long}.")
    for title, counts in (("Kinds", report.kinds), ("Topics", report.topics), ("Yes/no answers", report.answers)):
        if counts:
            yield from ("", f"## {title}", "")
            yield tallied(counts)
    for section in report.sections:
        yield from _samples(section)


def _samples(section: Section) -> Iterator[str]:
    if not section.samples:
        return
    shown = f"{len(section.samples)} of {section.count}" if section.count > len(section.samples) else "all"
    yield from ("", f"## {_TITLES[section.problem]} ({shown})", "")
    for sample in section.samples:
        if sample.answer:
            yield f"- {_code(sample.question)} → {_code(sample.answer)} ({sample.value:g})"
        if sample.other:
            yield f"  - like {_code(sample.other)}"
        if sample.note:
            yield f"{'  ' if sample.answer else ''}- {sample.note}"


def _code(text: str) -> str:
    """What somebody typed, on one line, with nothing that Markdown would act on."""
    line = " ".join(text.split())
    ticks = "``" if "`" in line else "`"
    return f"{ticks}{line}{ticks}" if not line.startswith("`") and not line.endswith("`") else f"`` {line} ``"


def to_svg(report: QualityReport) -> str:
    """Return a picture with a bar chart of words an answer and, where it was scored, of loss under the base."""
    charts = [("words an answer", report.words)]
    if report.nats:
        charts.append(("nats per token under the base: left is what it says by itself", report.nats))
    body: list[str] = []
    top = 0
    for title, counts in charts:
        lines, top = _chart(title, counts, top)
        body += lines
    size = f'width="{_WIDTH}" height="{top}" viewBox="0 0 {_WIDTH} {top}"'
    style = 'font-family="sans-serif" font-size="12"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>\n' + "\n".join(body) + "\n</svg>\n"


def _chart(title: str, counts: Mapping[str, int], top: int) -> tuple[list[str], int]:
    most = max([1, *counts.values()])
    lines = [f'<text x="4" y="{top + 16}" font-weight="bold">{escape(title)}</text>']
    y = top + 24
    for name, count in counts.items():
        width = round((_WIDTH - _LABEL_WIDTH - 48) * count / most)
        lines.append(f'<text x="4" y="{y + 12}">{escape(name)}</text>')
        lines.append(f'<rect x="{_LABEL_WIDTH}" y="{y}" width="{width}" height="{_BAR_HEIGHT}" fill="#4477aa"/>')
        lines.append(f'<text x="{_LABEL_WIDTH + width + 6}" y="{y + 12}">{count}</text>')
        y += _BAR_HEIGHT + _BAR_GAP
    return lines, y + 8
