"""What asking a model costs: tokens by kind, dollars by a dated price table.

The table is a YAML file with the date and the source of its prices, because they change without notice: one's own
goes into LORRY_WRITER_PRICES_FILE. Laws: ``Cost.from_json(c.to_json()) == c``; costs are computed request by
request, as a long prompt may have a price of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import date
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kit.words import counted
from training.errors import ConfigInvalid

_TOKENS_PER_UNIT = 1_000_000


@dataclass(frozen=True, kw_only=True)
class TokenUsage:
    """Tokens of one or more requests.

    `input_tokens` are those neither written to the cache nor read from it; `requests` counts the answers paid for.
    """

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    cache_read_tokens: int = 0

    def __add__(self, other: TokenUsage) -> TokenUsage:
        """Return the sum, kind by kind."""
        return TokenUsage(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})

    @property
    def prompt_tokens(self) -> int:
        """All tokens that were sent, cached or not."""
        return self.input_tokens + self.cache_write_5m_tokens + self.cache_write_1h_tokens + self.cache_read_tokens


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Tokens and dollars; `dollars` is None when the table has no price for the model.

    `estimated` says that nothing was bought yet. `prices_as_of` and `prices_source` name the table.
    """

    model: str
    usage: TokenUsage
    dollars: float | None
    estimated: bool = False
    prices_as_of: str | None = None
    prices_source: str | None = None

    @property
    def paid(self) -> str:
        """How many answers were paid for, and with what, in words."""
        dollars = "no price is known" if self.dollars is None else f"${self.dollars:.4f}"
        return f"{counted(self.usage.requests, 'answer')}: {dollars}"

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, which `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Rebuild what `to_json` wrote."""
        return cls(**{**value, "usage": TokenUsage(**value["usage"])})


FREE = Cost(model="none", usage=TokenUsage(), dollars=0.0)
"""What an offline writer costs."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LongPrompt(_Frozen):
    """The price of requests whose prompts are longer than `above_tokens`."""

    above_tokens: int = Field(ge=1)
    input: float = Field(ge=0)
    output: float = Field(ge=0)


class Price(_Frozen):
    """Dollars per million tokens of one model when it answers at once."""

    input: float = Field(ge=0)
    output: float = Field(ge=0)
    long_prompt: LongPrompt | None = None


class PriceTable(_Frozen):
    """Prices of several models, and what batches and caches cost in proportion."""

    as_of: date
    source: str = Field(min_length=1)
    batch_factor: float = Field(0.5, gt=0, le=1)
    cache_write_5m_factor: float = Field(1.25, ge=0)
    cache_write_1h_factor: float = Field(2.0, ge=0)
    cache_read_factor: float = Field(0.1, ge=0)
    models: dict[str, Price]

    def cost(self, usage: TokenUsage, *, model: str, batch: bool, estimated: bool = False) -> Cost:
        """Return what `usage` costs; a model is looked up by its name, then by the longest name that begins it."""
        price = self._price(model)
        dollars = None if price is None else self._dollars(usage, price, batch=batch)
        return Cost(
            model=model,
            usage=usage,
            dollars=dollars,
            estimated=estimated,
            prices_as_of=self.as_of.isoformat() if price else None,
            prices_source=self.source if price else None,
        )

    def _price(self, model: str) -> Price | None:
        if model in self.models:
            return self.models[model]
        known = [name for name in self.models if model.startswith(f"{name}-")]
        return self.models[max(known, key=len)] if known else None

    def _dollars(self, usage: TokenUsage, price: Price, *, batch: bool) -> float:
        long = price.long_prompt
        mean_prompt = usage.prompt_tokens / max(1, usage.requests)
        rates = long if long is not None and mean_prompt > long.above_tokens else price
        sent = (
            usage.input_tokens
            + usage.cache_write_5m_tokens * self.cache_write_5m_factor
            + usage.cache_write_1h_tokens * self.cache_write_1h_factor
            + usage.cache_read_tokens * self.cache_read_factor
        )
        dollars = (sent * rates.input + usage.output_tokens * rates.output) / _TOKENS_PER_UNIT
        return round(dollars * (self.batch_factor if batch else 1.0), 9)


def add_costs(first: Cost, second: Cost) -> Cost:
    """Return the sum of what was spent on one model; unknown when either is."""
    known = first.dollars is not None and second.dollars is not None
    return Cost(
        model=second.model if first.model == FREE.model else first.model,
        usage=first.usage + second.usage,
        dollars=round((first.dollars or 0) + (second.dollars or 0), 9) if known else None,
        estimated=first.estimated or second.estimated,
        prices_as_of=second.prices_as_of or first.prices_as_of,
        prices_source=second.prices_source or first.prices_source,
    )


def load_prices(path: Path | None = None) -> PriceTable:
    """Return the price table in `path`, or the one that ships with this version.

    Raises:
        ConfigInvalid: naming the file and what is wrong in it.
    """
    if path is None:
        return _packaged_prices()
    try:
        return PriceTable.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as exc:
        raise ConfigInvalid(f"{path} cannot be read: {exc.strerror}", field=str(path)) from exc
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise ConfigInvalid(f"{path} is not YAML: {exc}", field=str(path)) from exc
    except ValidationError as exc:
        first = exc.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigInvalid(f"{path}: {place}: {first['msg']}", field=place) from exc


@cache
def _packaged_prices() -> PriceTable:
    text = files("training.writers").joinpath("prices.yaml").read_text(encoding="utf-8")
    return PriceTable.model_validate(yaml.safe_load(text))
