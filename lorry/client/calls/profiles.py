"""Calls about a user's profile."""

from __future__ import annotations

import httpx

from lorry.client.calls.call import Call, adapter_version, given, model, user_path
from lorry.client.errors import refusal
from lorry.client.results import Profile, ProfileDifference

_MARKDOWN = "text/markdown"
_NOT_MODIFIED, _WITHHELD = 304, 204


def get(user: str, *, known: Profile | None) -> Call[Profile]:
    """Read the newest profile, unless it is the known one."""

    def read(response: httpx.Response) -> Profile:
        return known if known is not None and response.status_code == _NOT_MODIFIED else _profile(response)

    headers = {} if known is None else {"if-none-match": known.etag}
    also = frozenset() if known is None else frozenset({_NOT_MODIFIED})
    return Call(method="GET", path=_path(user), headers=headers, also=also, read=read)


def page(user: str) -> Call[str]:
    """Read the newest profile as Markdown."""
    return Call(method="GET", path=_path(user), headers={"accept": _MARKDOWN}, read=_text)


def extract(user: str) -> Call[Profile]:
    """Extract a profile now."""
    return Call(method="POST", path=_path(user), read=_profile)


def context(user: str, *, budget_tokens: int | None) -> Call[str]:
    """Read the newest profile as an agent's context."""
    params = given(budget_tokens=budget_tokens)
    return Call(method="GET", path=f"{_path(user)}/context", params=params, read=_text)


def difference(user: str) -> Call[ProfileDifference]:
    """Read what changed with the newest profile."""
    return Call(method="GET", path=f"{_path(user)}/difference", read=model(ProfileDifference))


def _path(user: str) -> str:
    return f"{user_path(user)}/profile"


def _profile(response: httpx.Response) -> Profile:
    if response.status_code == _WITHHELD:
        detail = "the profile was extracted and kept; to be shown it, the API key needs the scope 'profiles:read'"
        raise refusal(403, {"type": "urn:lorry:problem:scope-missing", "detail": detail, "scope": "profiles:read"})
    document, etag = response.json(), response.headers.get("etag", "")
    return Profile(document=document, adapter_version=adapter_version(response), etag=etag)


def _text(response: httpx.Response) -> str:
    return response.text
