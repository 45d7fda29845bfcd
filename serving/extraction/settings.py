"""How much extraction asks, what it keeps, and which engines other bases have."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode

from kit.errors import InvalidName
from kit.settings import Settings
from registry.manifest import check_base_id


def _urls_of_bases(value: Any) -> Any:
    """Read a JSON object, as the environment gives it, so that what is wrong with it is said like of any setting."""
    if isinstance(value, str):
        try:
            value = json.loads(value) if value else {}
        except ValueError:
            value = None
    urls = value if isinstance(value, dict) else None
    if urls is None:
        raise ValueError('must be a JSON object, a base\'s id to a URL: {"llama-3.1-8b": "http://engine-next:8100"}')
    for base_id, url in urls.items():
        try:
            check_base_id(base_id)
        except InvalidName as exc:
            raise ValueError(exc.message) from exc
        if not isinstance(url, str) or not url.startswith(("http://", "https://")):
            raise ValueError(f"the URL of base {base_id!r} must begin with http:// or https://")
    return urls


UrlsOfBases = Annotated[dict[str, str], NoDecode, BeforeValidator(_urls_of_bases)]


class BaseEngineSettings(Settings):
    """Where bases are served that the engine at LORRY_ENGINE_URL does not serve."""

    base_engine_urls: UrlsOfBases = Field(
        default_factory=dict,
        description=(
            "engines of other bases, as JSON: a base's id, as `lorry bases list` shows it, to the base URL of its"
            " engine, which has the same token; all other bases are asked of LORRY_ENGINE_URL"
        ),
    )


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
