"""What was found in a dataset's examples: counts, samples and distributions, as JSON, as a page, as a picture.

The report holds samples of the user's words and belongs beside their dataset; its figures hold none. Laws: it is a
function of the examples, the configuration and the base's losses; ``QualityReport.from_json(r.to_json()) == r``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from training.config import Action
from training.examples import KINDS, Example
from training.quality.findings import PROBLEMS, Finding, Problem

SCHEMA = "lorry.quality/1"
_SAMPLES = 5
_WORD_BINS = (2, 4, 8, 16, 32, 64)
_NAT_BINS = (0.5, 1.0, 2.0, 3.0, 4.0, 6.0)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One finding as people read it."""

    question: str
    answer: str
    value: float
    other: str | None
    note: str


@dataclass(frozen=True, kw_only=True)
class Section:
    """One kind of problem: how often it was found, what was done about it, and some of what was found."""

    problem: Problem
    action: Action
    count: int
    dropped: int
    samples: tuple[Sample, ...]


@dataclass(frozen=True, kw_only=True)
class QualityReport:
    """All problems, and what the examples that were kept are like.

    `examined` and `kept` count training examples. `words` and `nats` are counts by upper bound, the last one open;
    `nats` is empty where nothing scored the examples. `unscored` counts those that the scorer has no loss for. `losses`
    has every pair that was scored by its key, as it was written, in nats a token; `scored_by` says what scored them.
    """

    examined: int
    kept: int
    sections: tuple[Section, ...]
    kinds: Mapping[str, int]
    topics: Mapping[str, int]
    answers: Mapping[str, int]
    words: Mapping[str, int]
    nats: Mapping[str, int]
    unscored: int = 0
    losses: Mapping[str, float | None] = field(default_factory=dict)
    scored_by: str | None = None

    @property
    def warnings(self) -> int:
        """How many findings were left for people to judge."""
        return sum(section.count for section in self.sections if section.action == "warn")

    @property
    def dropped(self) -> dict[str, int]:
        """How many examples were dropped for what."""
        return {section.problem: section.dropped for section in self.sections if section.dropped}

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, which `from_json` reads."""
        return {"schema": SCHEMA, **asdict(self)}

    def figures(self) -> dict[str, Any]:
        """Return what may be kept and shown without the dataset: counts, and no word of the user's."""
        sections = [
            {"problem": each.problem, "action": each.action, "count": each.count, "dropped": each.dropped}
            for each in self.sections
        ]
        return {
            "examined": self.examined,
            "kept": self.kept,
            "sections": sections,
            "kinds": dict(self.kinds),
            "topics": dict(self.topics),
            "answers": dict(self.answers),
            "words": dict(self.words),
            "nats": dict(self.nats),
            "unscored": self.unscored,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Rebuild what `to_json` wrote; what only a later release writes is left out."""
        sections = tuple(_section_of(section) for section in value["sections"])
        return cls(**{**_known(cls, value), "sections": sections})


def _section_of(value: Mapping[str, Any]) -> Section:
    samples = tuple(Sample(**_known(Sample, sample)) for sample in value["samples"])
    return Section(**{**_known(Section, value), "samples": samples})


def _known(kind: type[Any], value: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members of a JSON object that a dataclass has fields for."""
    return {each.name: value[each.name] for each in fields(kind) if each.name in value}


def make_report(
    examined: Sequence[Example],
    kept: Sequence[Example],
    findings: Sequence[Finding],
    actions: Mapping[Problem, Action],
    *,
    losses: Mapping[Example, float | None] | None,
    scored_by: str | None,
) -> QualityReport:
    """Return the report; `losses` are of what was scored, `findings` point into `examined`."""
    words = [len(example.completion.split()) for example in kept]
    known = losses or {}
    asked = [known[example] for example in kept if example in known]  # what a person has edited was not
    scored = [loss for loss in asked if loss is not None]
    return QualityReport(
        examined=len(examined),
        kept=len(kept),
        sections=tuple(_section(problem, examined, findings, actions) for problem in PROBLEMS),
        kinds={kind: count for kind in KINDS if (count := sum(example.kind == kind for example in kept))},
        topics=dict(sorted(Counter(example.topic for example in kept if example.topic).items())),
        answers=dict(sorted(Counter(example.answer for example in kept if example.answer).items())),
        words=_histogram(words, _WORD_BINS),
        nats=_histogram(scored, _NAT_BINS) if losses is not None else {},
        unscored=len(asked) - len(scored),
        losses={example.key: loss for example, loss in known.items()},
        scored_by=scored_by,
    )


def _section(
    problem: Problem, examined: Sequence[Example], findings: Sequence[Finding], actions: Mapping[Problem, Action]
) -> Section:
    found = [finding for finding in findings if finding.problem == problem]
    action = actions[problem]
    return Section(
        problem=problem,
        action=action,
        count=len(found),
        dropped=len({finding.index for finding in found}) if action == "drop" else 0,
        samples=tuple(_sample(finding, examined) for finding in found[:_SAMPLES]),
    )


def _sample(finding: Finding, examined: Sequence[Example]) -> Sample:
    example = examined[finding.index] if finding.index is not None else None
    return Sample(
        question=example.prompt[-1].content if example else "",
        answer=example.completion if example else "",
        value=round(finding.value, 4),
        other=finding.other,
        note=finding.note,
    )


def _histogram(values: Sequence[float], bounds: Sequence[float]) -> dict[str, int]:
    counts = dict.fromkeys([*(f"< {bound:g}" for bound in bounds), f"≥ {bounds[-1]:g}"], 0)
    for value in values:
        name = next((f"< {bound:g}" for bound in bounds if value < bound), f"≥ {bounds[-1]:g}")
        counts[name] += 1
    return counts
