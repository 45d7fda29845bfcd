"""What may be written about, and what is kept to measure on: transcripts split, then redacted.

The split looks at the transcripts as they are stored, so that other redaction rules do not move anything across it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from training.config import DatasetConfig
from training.examples import Example
from training.split import split_transcripts
from transcripts.continuation import without_continued
from transcripts.redaction import Redactor
from transcripts.transcript import Transcript


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """One user's transcripts, ready to be written about: only `kept` may be shown to a question writer.

    `originals` maps the ids that the transcripts have now to those they are stored under; `source_ids` are the stored
    ids of all of them, sorted, also of those that redaction made equal to others. `redaction` is the redactor's
    record with the counts of what it found, by kind; None without a redactor.
    """

    kept: tuple[Transcript, ...]
    held: tuple[Transcript, ...]
    originals: Mapping[str, str]
    source_ids: tuple[str, ...]
    redaction: Mapping[str, Any] | None

    @property
    def by_original(self) -> dict[str, Transcript]:
        """The kept transcripts, as they may be shown, by the ids that they are stored under."""
        return {self.originals[transcript.id]: transcript for transcript in self.kept}

    def restore(self, example: Example) -> Example:
        """Return the example under the stored name of its transcript."""
        return replace(example, transcript_id=self.originals.get(example.transcript_id, example.transcript_id))


def prepare(transcripts: Sequence[Transcript], *, config: DatasetConfig, redactor: Redactor | None = None) -> Prepared:
    """Return the transcripts split and redacted; neither their order nor duplicates among them matter.

    Two that redaction makes equal count as one. Of a conversation that was imported in several states, or in parts and
    whole, the longest counts; those that only share messages stand on one side of the split.
    """
    last = without_continued(transcripts)
    distinct = sorted({transcript.id: transcript for transcript in last}.values(), key=lambda item: item.id)
    ids = tuple(transcript.id for transcript in distinct)
    kept, held = split_transcripts(distinct, share=config.held_out_share, seed=config.seed)
    if redactor is None:
        same = {transcript.id: transcript.id for transcript in distinct}
        return Prepared(kept=tuple(kept), held=tuple(held), originals=same, source_ids=ids, redaction=None)
    redacted = redactor.redact([*held, *kept])  # together: a secret is hidden wherever it is said again
    originals: dict[str, str] = {}
    for cleaned, source in zip(redacted.transcripts, redacted.source_ids, strict=True):
        originals.setdefault(cleaned.id, source)
    held_ids = {transcript.id for transcript in redacted.transcripts[: len(held)]}
    return Prepared(
        kept=_distinct(each for each in redacted.transcripts[len(held) :] if each.id not in held_ids),
        held=_distinct(redacted.transcripts[: len(held)]),
        originals=originals,
        source_ids=ids,
        redaction={**redactor.record(), "counts": redacted.counts},
    )


def _distinct(transcripts: Iterable[Transcript]) -> tuple[Transcript, ...]:
    return tuple({transcript.id: transcript for transcript in transcripts}.values())
