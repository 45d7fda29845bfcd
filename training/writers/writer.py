"""What every question writer is: transcripts in, examples out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from training.examples import Example
from transcripts.transcript import Transcript


class QuestionWriter(Protocol):
    """Writes statements and negatives about the user, from the user's own turns."""

    @property
    def name(self) -> str:
        """Its name and the version of its wording, recorded in every dataset: ``extractive/1``."""

    def write(self, transcripts: Sequence[Transcript], *, seed: int) -> list[Example]:
        """Return examples of the kinds ``statement`` and ``negative``, in a stable order.

        Equal transcripts and seeds give equal examples; no sentence is attributed to the user that they did not
        write.
        """
