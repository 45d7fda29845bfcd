"""Which of a resource's forms a request accepts."""

from __future__ import annotations

from collections.abc import Sequence


def preferred(accept: str, *, offers: Sequence[str]) -> str | None:
    """Return the offer that an ``Accept`` header likes best, the earlier one of equals; None when it accepts none.

    Args:
        accept: the header's value; empty accepts anything.
        offers: media types such as ``application/json``.
    """
    if not accept.strip():
        return offers[0]
    ranges = [_parse(part) for part in accept.split(",") if part.strip()]
    rated = [(_quality(offer, ranges), -index, offer) for index, offer in enumerate(offers)]
    quality, _, best = max(rated)
    return best if quality > 0 else None


def _parse(part: str) -> tuple[str, float]:
    media, *parameters = (piece.strip().lower() for piece in part.split(";"))
    quality = 1.0
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                quality = float(value)
            except ValueError:
                quality = 0.0
    return media, quality


def _quality(offer: str, ranges: Sequence[tuple[str, float]]) -> float:
    """The most specific range that matches decides."""
    for pattern in (offer, f"{offer.partition('/')[0]}/*", "*/*"):
        qualities = [quality for media, quality in ranges if media == pattern]
        if qualities:
            return max(qualities)
    return 0.0
