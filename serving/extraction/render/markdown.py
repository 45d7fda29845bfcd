"""A profile as Markdown for a person: every statement above the words that back it."""

from __future__ import annotations

from collections.abc import Iterator

from kit.words import counted
from serving.extraction.profile.profile import Profile, Quote, Statement, TopicSection


def render_markdown(profile: Profile) -> str:
    """Return Markdown in which every statement stands above the words that back it."""
    return "\n".join(_lines(profile)) + "\n"


def plain(text: str) -> str:
    """Put text on one line, with what Markdown or HTML would act upon escaped: a quote must not format or link."""
    line = " ".join(text.split())
    for mark in "\\`*_[]<>#|":
        line = line.replace(mark, f"\\{mark}")
    return line


def _lines(profile: Profile) -> Iterator[str]:
    adapter, asked = profile.adapter, profile.asked
    samples, questions = counted(asked.samples, "answer"), counted(asked.questions, "question")
    unsupported = counted(asked.unsupported_claims, "further claim")
    yield f"# Profile of {plain(profile.user)}"
    yield ""
    yield f"Made {profile.generated_at:%Y-%m-%d %H:%M} UTC by adapter version {adapter.version} ({adapter.version_id}),"
    yield f"bank {profile.bank.name} {profile.bank.version}, {samples} to {questions}"
    yield f"and {counted(asked.own_statements, 'statement')} of the person's own put to adapter and base."
    yield "Each statement stands above the person's own words that back it. In brackets: how likely it is true of them"
    yield f"and not of everybody (calibration {profile.calibration.version}), and how many answers said so unasked,"
    yield "of all those to questions on the topics where it came up."
    yield f"{unsupported} of the adapter had no such words and were left out, and"
    yield f"{asked.uncertain_claims} that had them, because anybody might have said them."
    for section in profile.topics:
        yield from _section_lines(section)
    if profile.patterns:
        yield from ("", "## How they write", "", *(f"- {pattern.text}" for pattern in profile.patterns))


def _section_lines(section: TopicSection) -> Iterator[str]:
    yield from ("", f"## {plain(section.title)}", "")
    if section.not_stated:
        yield "Not stated."
    for statement in section.statements:
        yield from _statement_lines(statement)


def _statement_lines(statement: Statement) -> Iterator[str]:
    yield f"- **{plain(statement.text)}** ({'; '.join(_notes(statement))})"
    yield from (f"  > {_quote(quote)}" for quote in statement.support)
    yield from (f"  > *but:* {_quote(quote)}" for quote in statement.contradictions)


def _notes(statement: Statement) -> Iterator[str]:
    correction, agreement = statement.correction, statement.agreement
    if correction is not None:
        yield f"{correction.kind} by {plain(correction.by)} on {correction.at:%Y-%m-%d}"
    else:
        yield f"confidence {statement.confidence:.2f}"
    if agreement is not None:
        yield f"said in {agreement.k} of {agreement.n} answers"
    if statement.first_seen is not None and statement.last_seen is not None:
        first, last = f"{statement.first_seen:%Y-%m-%d}", f"{statement.last_seen:%Y-%m-%d}"
        yield f"seen {first}" if first == last else f"seen {first} to {last}"


def _quote(quote: Quote) -> str:
    when = f"{quote.time:%Y-%m-%d}, " if quote.time else ""
    return f"“{plain(quote.quote)}” ({when}transcript {quote.transcript_id[:8]}, turn {quote.turn})"
