"""What was extracted of one person, kept as JSON, and the figures over many."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.fidelity.checker import denies_trait, same_fact, says_trait, supports
from bench.fidelity.fitting import Judged
from bench.fidelity.people import MadePerson
from serving.extraction.asking.agreement import like_alike
from serving.extraction.candidates import Candidates
from serving.extraction.extract import is_sure
from serving.extraction.language.splitting import split_clauses
from serving.extraction.scoring.confidence import Calibration, Scores
from serving.extraction.settings import ExtractionSettings
from transcripts.transcript import Transcript


@dataclass(frozen=True, kw_only=True)
class Found:
    """One supported fact that came up: its scores, and what it is quoted from as (quote, transcript id, turn)."""

    text: str
    scores: Scores
    quotes: tuple[tuple[str, str, int], ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Found:
        """Read what `to_json` gave."""
        quotes = tuple((quote, transcript, turn) for quote, transcript, turn in value["quotes"])
        return cls(text=value["text"], scores=Scores(**value["scores"]), quotes=quotes)


def found_in(candidates: Candidates) -> list[Found]:
    """Return everything supported that came up in one extraction, stated or not."""
    return [
        Found(
            text=each.fact.text,
            scores=each.scores,
            quotes=tuple((quote.quote, quote.transcript_id, quote.turn) for quote in each.fact.support),
        )
        for each in candidates.candidates
    ]


def stated(found: Iterable[Found], *, calibration: Calibration, settings: ExtractionSettings) -> list[Found]:
    """Return those that are sure enough to be stated, each liking once, as a profile states it."""
    kept: list[Found] = []
    for each in sorted(found, key=lambda each: -calibration.confidence(each.scores)):
        sure = is_sure(each.scores, calibration.confidence(each.scores), settings)
        if sure and not any(_like_alike(each.text, other.text) for other in kept):
            kept.append(each)
    return kept


def _like_alike(one: str, other: str) -> bool:
    return any(like_alike(a, b) for a in split_clauses(one)[:1] for b in split_clauses(other)[:1])


def judged(person: MadePerson, found: Iterable[Found]) -> list[Judged]:
    """Return each fact with whether it says a trait of the person's; what anybody says is none."""
    return [
        Judged(
            person=person.name,
            scores=each.scores,
            is_true=is_true(person, each),
        )
        for each in found
    ]


def is_true(person: MadePerson, fact: Found) -> bool:
    """Say whether a fact says a trait of the person's, or what is true of their kin."""
    return any(says_trait(fact.text, trait) for trait in (*person.traits, *person.of_others))


def precision(person: MadePerson, facts: Sequence[Found]) -> float | None:
    """Return the share of facts that are true of the person or their kin; None without facts."""
    right = sum(is_true(person, fact) for fact in facts)
    return right / len(facts) if facts else None


def recall(person: MadePerson, facts: Sequence[Found]) -> float:
    """Return the share of the person's traits that some fact says."""
    return sum(any(says_trait(fact.text, t) for fact in facts) for t in person.traits) / len(person.traits)


def overturned(person: MadePerson, facts: Sequence[Found]) -> int:
    """Return how many facts say the opposite of one of the person's traits."""
    return sum(any(denies_trait(fact.text, trait) for trait in person.traits) for fact in facts)


def named_absent(person: MadePerson, facts: Sequence[Found]) -> int:
    """Return how many facts are about a thing that is no trait of the person's, though their turns name it."""
    of_kin = [fact for fact in facts if any(says_trait(fact.text, trait) for trait in person.of_others)]
    rest = [fact.text.casefold() for fact in facts if fact not in of_kin]
    return sum(any(thing.casefold() in text for thing in person.absent) for text in rest)


def independently_supported(fact: Found, transcripts: Mapping[str, Transcript]) -> bool:
    """Say whether the checker finds that some quote of the fact is the user's and says it."""
    for quote, transcript_id, index in fact.quotes:
        transcript = transcripts.get(transcript_id)
        if transcript is None or not 0 <= index < len(transcript.turns):
            continue
        turn = transcript.turns[index]
        if turn.role == "user" and supports(fact.text, quote=quote, turn=turn.text):
            return True
    return False


def platitude_share(profiles: Mapping[str, Sequence[Found]]) -> float | None:
    """Return the share of all facts that come out for somebody else as well; None without facts."""
    total = shared = 0
    for user, facts in profiles.items():
        others = [fact.text for other, theirs in profiles.items() if other != user for fact in theirs]
        total += len(facts)
        shared += sum(any(same_fact(fact.text, text) for text in others) for fact in facts)
    return shared / total if total else None
