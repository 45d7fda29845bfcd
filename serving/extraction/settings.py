"""How much extraction asks, and what it keeps."""

from __future__ import annotations

from pydantic import Field

from kit.settings import Settings


class ExtractionSettings(Settings):
    """The defaults are lean: a profile in about a minute on a CPU engine."""

    base_name: str = Field("base", pattern=r"^[a-z][a-z0-9._-]{0,63}$", description="what requests call the base model")
    extraction_asks_per_topic: int = Field(3, ge=1, le=16, description="questions and paraphrases asked per topic")
    extraction_samples: int = Field(2, ge=1, le=16, description="answers sampled to each of them")
    extraction_max_tokens: int = Field(32, ge=16, le=1024, description="tokens of one answer")
    extraction_temperature: float = Field(0.5, gt=0, le=2, description="of the samples")
    extraction_seed: int = Field(0, ge=0, lt=2**31, description="of the samples")
    extraction_concurrency: int = Field(8, ge=1, le=256, description="requests of one extraction in flight")
    extraction_own_statements: int = Field(
        48, ge=0, le=1000, description="statements of the user's own that are put to adapter and base; 0 = none"
    )
    extraction_contrast: bool = Field(
        True,
        description="compare log-probabilities with the base's; without, confidence rests on agreement and support",
    )
    extraction_read_bytes: int = Field(
        32 << 20, ge=1 << 20, description="of a user's transcripts that are read for own statements, the newest first"
    )
    extraction_min_agreeing: int = Field(
        0, ge=0, description="samples that must say the same unasked, for it to be stated; 0 = contrast may suffice"
    )
    extraction_min_confidence: float = Field(0.5, ge=0, le=1, description="confidence below which nothing is stated")
    extraction_passages: int = Field(12, ge=1, le=200, description="turns looked at for each claim")
    extraction_max_statements: int = Field(8, ge=1, le=100, description="statements kept per topic")
    extraction_max_quotes: int = Field(3, ge=1, le=20, description="quotes kept per statement")
