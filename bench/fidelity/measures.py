"""The figures of the benchmark, each with what it should be."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from bench.fidelity.figures import (
    Found,
    independently_supported,
    is_true,
    judged,
    named_absent,
    overturned,
    platitude_share,
    precision,
    recall,
)
from bench.fidelity.fitting import measure
from bench.fidelity.people import MadePerson
from bench.report import Measure, compare
from serving.extraction.scoring.confidence import Calibration
from transcripts.transcript import Transcript


def made_measures(people: Sequence[MadePerson], facts: Mapping[str, Sequence[Found]]) -> list[Measure]:
    """Return how true and how whole the profiles of made people are."""
    if not people:
        return []
    mine = [(person, facts[person.name]) for person in people]
    precisions = [value for person, found in mine if (value := precision(person, found)) is not None]
    rows = [
        _bounded("recall of known traits", "share", [recall(person, found) for person, found in mine], 0.5),
        _fewest("facts of a profile, made people", [len(found) for _, found in mine], 5),
        _bounded("facts on absent traits", "facts", [named_absent(p, found) for p, found in mine], 0, better="lower"),
    ]
    if precisions:
        rows.insert(0, _bounded("precision, made people", "share", precisions, 0.9))
    supported = [
        independently_supported(fact, {t.id: t for t in person.transcripts}) for person, found in mine for fact in found
    ]
    if supported:
        rows.append(_bounded("independently supported, made people", "share", [_share(supported)], 0.95))
    return rows


def turned_measures(
    turned: Sequence[MadePerson], people: Sequence[MadePerson], facts: Mapping[str, Sequence[Found]]
) -> list[Measure]:
    """Return whether the facts of negated people turn: none may say what the person says who is not negated."""
    before = {person.name: person for person in people}
    pairs = [(before[each.name.removesuffix("-negated")], each) for each in turned]
    if not pairs:
        return []
    kept = [overturned(each, facts[each.name]) for _, each in pairs]
    rows = [_bounded("negated: facts that did not turn", "facts", kept, 0, better="lower")]
    rows.append(_bounded("negated: recall of the negated traits", "share",
                         [recall(each, facts[each.name]) for _, each in pairs], 0.3))  # fmt: skip
    return rows


def swapped_measures(people: Sequence[MadePerson], swapped: Mapping[str, Sequence[Found]]) -> list[Measure]:
    """Return whether facts follow the transcripts: none may be the adapter's owner's unless the other has it too."""
    by_name = {person.name: person for person in people}
    names = [person.name for person in people if person.name in swapped]
    left = []
    for number, name in enumerate(names):
        other = by_name[names[(number + 1) % len(names)]]
        only_own = [trait for trait in by_name[name].traits if trait not in other.traits]
        owner = MadePerson(name=name, traits=tuple(only_own), absent=(), transcripts=())
        left.append(sum(is_true(owner, fact) for fact in swapped[name]))
    return [_bounded("swapped: facts of the adapter's owner", "facts", left, 0, better="lower")] if left else []


def real_measures(real: Mapping[str, tuple[Sequence[Found], Mapping[str, Transcript]]]) -> list[Measure]:
    """Return how much is said of real people, how much of it the checker finds, and how much is said of others too."""
    if not real:
        return []
    rows = [_bounded("facts a profile, real people", "facts", [len(facts) for facts, _ in real.values()], 5)]
    supported = [independently_supported(fact, said) for facts, said in real.values() for fact in facts]
    if supported:
        rows.append(_bounded("independently supported, real people", "share", [_share(supported)], 0.95))
    shared = platitude_share({name: facts for name, (facts, _) in real.items()})
    if shared is not None and len(real) > 1:
        rows.append(_bounded("facts that come out for others too", "share", [shared], 0.05, better="lower"))
    return rows


def calibration_measures(
    calibration: Calibration, people: Sequence[MadePerson], facts: Mapping[str, Sequence[Found]]
) -> list[Measure]:
    """Return the Brier score on people who were not fitted on, beside that of always saying the mean."""
    known = [each for person in people for each in judged(person, facts[person.name])]
    if not known:
        return []
    found = measure(calibration, known)
    rows = [compare("Brier score", unit="", ours=[found.brier], peer=[found.brier_of_the_mean], target=1.0)]
    for each in found.reliability:
        name = f"confidence {each.low:.1f} to {each.high:.1f} ({each.count} facts): mean, and share that is true"
        rows.append(compare(name, unit="", ours=[each.mean_confidence], peer=[each.true]))
    return rows


def _share(values: Iterable[bool]) -> float:
    known = [*values]
    return sum(known) / len(known)


def _fewest(measure: str, values: Sequence[int], target: int) -> Measure:
    """The least that anybody has, which a mean would hide."""
    found = _bounded(measure, "facts", [min(values)], target)
    return dataclasses.replace(
        found, measure=f"fewest {measure}, of {len(values)}", ours_spread=(min(values), max(values))
    )


def _bounded(
    measure: str, unit: str, values: Sequence[float], target: float, *, better: Literal["lower", "higher"] = "higher"
) -> Measure:
    """A mean over people with a target of its own rather than a ratio's."""
    mean = sum(values) / len(values)
    return Measure(
        measure=f"{measure}, mean of {len(values)}",
        unit=unit,
        ours=mean,
        peer=None,
        ratio=None,
        target=target,
        met=mean >= target if better == "higher" else mean <= target,
        better=better,
        rounds=1,
        ours_spread=(min(values), max(values)),
        peer_spread=None,
    )
