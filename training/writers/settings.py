"""What question writers can be told; a dataset's own configuration says which of them writes (`dataset.writer`)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, SecretStr, ValidationError

from kit.reasons import describe
from kit.settings import Settings
from training.errors import ConfigInvalid
from transcripts.redaction import RedactionSettings, Redactor


class WriterSettings(Settings):
    """The services that write questions, what they may cost and how patiently they are asked."""

    writer_model: str | None = Field(None, description="model that writes; unset = claude-haiku-5-5 for Claude")
    writer_url: str | None = Field(
        None,
        description="base URL of the service; unset = Anthropic's for Claude. Required for an OpenAI-compatible one",
    )
    writer_api_key: SecretStr | None = Field(None, description="key of that service")
    writer_max_dollars: float | None = Field(
        None, ge=0, description="refuse to write one user's questions when their estimate is higher; unset = no limit"
    )
    writer_prices_file: Path | None = Field(None, description="YAML price table; unset = the one that ships with lorry")
    writer_tokens_each: int = Field(110, ge=1, description="tokens of an answer to reckon with for one pair")
    writer_effort: Literal["low", "medium", "high"] | None = Field(
        None, description="effort that Claude is asked for; unset = the model's own default"
    )
    writer_cache: Literal["5m", "1h", "off"] = Field(
        "5m",
        description="how long Claude keeps what both requests about the same turns begin with; an hour costs more to"
        " write than two readers save",
    )
    writer_rounds: int = Field(
        3, ge=1, le=10, description="how often a request that failed, expired or was answered badly is asked, at most"
    )
    writer_attempts: int = Field(
        5,
        ge=1,
        le=20,
        description="how often one HTTP call is tried, with growing pauses or those the service asks for",
    )
    writer_longest_pause_seconds: float = Field(
        60.0, gt=0, description="longest pause between two tries; a service that asks for more is asked again later"
    )
    writer_timeout_seconds: float = Field(120.0, gt=0, description="how long one HTTP call may take")
    writer_poll_seconds: float = Field(60.0, gt=0, description="pause between two looks at a running batch")
    writer_concurrency: int = Field(4, ge=1, le=64, description="requests at once to an OpenAI-compatible service")
    training_redact: bool = Field(True, description="replace secrets and personal identifiers before anything else")
    redaction_file: Path | None = Field(
        None,
        description="YAML file: what is replaced, and names and patterns of one's own; unset = all detectors",
    )
    writer_min_share: float = Field(
        0.5, ge=0, le=1, description="of the requests, answered usefully at least; otherwise the writing has failed"
    )

    def redactor(self) -> Redactor | None:
        """Return what takes secrets and identifiers out of transcripts; None when that is switched off.

        Raises:
            ConfigInvalid: the file cannot be used, naming the key; what it holds is not repeated.
        """
        return Redactor(self.redaction()) if self.training_redact else None

    def redaction(self) -> RedactionSettings:
        """Return what is to be looked for, whether it is replaced or not.

        Raises:
            ConfigInvalid: the file cannot be used, naming the key; what it holds is not repeated.
        """
        return RedactionSettings() if self.redaction_file is None else _read_redaction(self.redaction_file)


def _read_redaction(path: Path) -> RedactionSettings:
    try:
        return RedactionSettings.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    except OSError as exc:
        raise ConfigInvalid(f"{path} cannot be read: {exc.strerror}", field=str(path)) from exc
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise ConfigInvalid(f"{path} is not YAML", field=str(path)) from exc
    except ValidationError as exc:
        key, reason = describe(exc.errors(include_input=False)[0])
        key = key.removesuffix(".[key]")
        raise ConfigInvalid(f"{path}: {key} {reason}", field=key) from None
