from __future__ import annotations

import pytest

from serving.gateway.negotiation import preferred

OFFERS = ("application/json", "text/markdown")


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("text/markdown", "text/markdown"),
        ("text/*", "text/markdown"),
        ("Text/Markdown; charset=utf-8", "text/markdown"),
        ("application/json;q=0.5, text/markdown", "text/markdown"),
        ("application/json, text/markdown", "application/json"),
        ("*/*, application/json;q=0", "text/markdown"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "application/json"),
        ("text/html", None),
        ("text/markdown;q=0", None),
        ("text/markdown;q=nonsense", None),
        (",,;", None),
    ],
)
def test_the_best_accepted_form_is_chosen(accept: str, form: str | None) -> None:
    assert preferred(accept, offers=OFFERS) == form
