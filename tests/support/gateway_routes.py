"""Every route of the gateway that needs a key, with a request that it takes: for tests that go through all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
from fastapi import FastAPI

WITHOUT_KEY = {("GET", "/healthz"), ("GET", "/readyz"), ("GET", "/version"), ("GET", "/metrics")}
TRAINING_ID = "j" + "0" * 32
VERSION_ID = "v" + "0" * 32
NAMES = {
    "user_id": "ann",
    "transcript_id": "talk-1",
    "training_id": TRAINING_ID,
    "adapter": "profile",
    "selector": "1",
    "alias": "live",
    "model": "users/ann",
    "correction_id": "1",
    "extraction_id": "b" + "0" * 32,
}
WHY = {"why": "a test"}


@dataclass(frozen=True, kw_only=True)
class Route:
    """One route: what is sent to it, and which scope its caller needs."""

    method: str
    path: str
    scope: str
    body: Any = None
    lines: bytes | None = None
    query: Mapping[str, str] = field(default_factory=dict)

    async def call(self, http: httpx.AsyncClient, *, headers: Any = None, **names: str) -> httpx.Response:
        """Send the request, about whom `names` say."""
        path = self.path.format(**{**NAMES, **names})
        body = self.body
        if isinstance(body, dict) and "model" in body:
            body = {**body, "model": f"users/{names.get('user_id', NAMES['user_id'])}"}
        return await http.request(
            self.method, path, json=body, content=self.lines, params=dict(self.query), headers=headers
        )


_USER = "/v1/users/{user_id}"
_ADAPTER = "/v1/adapters/{user_id}/{adapter}"
_VERSION = _ADAPTER + "/versions/{selector}"
_BATCH = "/v1/extractions/{extraction_id}"
_CORRECTION = {"kind": "forbid", "fact": "I like tea", "by": "a test"}
_BANK = 'name: mine\nversion: "1"\nextends: lorry.standard\nleave_out: [places]\n'
_TURNS = [{"role": "user", "text": "I like tea"}]
_LINE = b'{"id": "talk-2", "turns": [{"role": "user", "text": "I like tea, too"}]}\n'

ROUTES = [
    Route(method="GET", path=_USER + "/profile", scope="profiles:read"),
    Route(method="POST", path=_USER + "/profile", scope="profiles:write"),
    Route(method="GET", path=_USER + "/profile/context", scope="profiles:read"),
    Route(method="GET", path=_USER + "/profile/difference", scope="profiles:read"),
    Route(method="GET", path=_USER + "/profile/corrections", scope="profiles:read"),
    Route(method="POST", path=_USER + "/profile/corrections", scope="profiles:write", body=_CORRECTION),
    Route(
        method="DELETE",
        path=_USER + "/profile/corrections/{correction_id}",
        scope="profiles:write",
        query={"by": "a test"},
    ),
    Route(method="GET", path="/v1/bank", scope="profiles:read"),
    Route(method="PUT", path="/v1/bank", scope="profiles:write", body={"document": _BANK, "by": "a test"}),
    Route(method="DELETE", path="/v1/bank", scope="profiles:write", query={"by": "a test"}),
    Route(method="POST", path="/v1/extractions", scope="extractions:write", body={"users": ["ann"]}),
    Route(method="GET", path="/v1/extractions", scope="extractions:read"),
    Route(method="GET", path=_BATCH, scope="extractions:read"),
    Route(method="GET", path=_BATCH + "/results", scope="extractions:read"),
    Route(method="POST", path=_BATCH + "/pause", scope="extractions:write"),
    Route(method="POST", path=_BATCH + "/resume", scope="extractions:write"),
    Route(method="POST", path=_BATCH + "/cancel", scope="extractions:write"),
    Route(method="POST", path=_USER + "/query", scope="query", body={"question": "?"}),
    Route(method="PUT", path=_USER + "/transcripts/{transcript_id}", scope="transcripts:write", body={"turns": _TURNS}),
    Route(method="GET", path=_USER + "/transcripts/{transcript_id}", scope="transcripts:read"),
    Route(method="DELETE", path=_USER + "/transcripts/{transcript_id}", scope="transcripts:write"),
    Route(method="GET", path=_USER + "/transcripts", scope="transcripts:read"),
    Route(method="GET", path=_USER + "/transcripts", scope="transcripts:read", query={"turns": "true"}),
    Route(method="POST", path=_USER + "/transcripts", scope="transcripts:write", lines=_LINE),
    Route(method="DELETE", path=_USER + "/transcripts", scope="transcripts:write"),
    Route(method="POST", path=_USER + "/trainings", scope="trainings:write", body={}),
    Route(method="GET", path="/v1/trainings", scope="trainings:read"),
    Route(method="GET", path="/v1/trainings/{training_id}", scope="trainings:read"),
    *(
        Route(method="POST", path=f"/v1/trainings/{{training_id}}/{verb}", scope="trainings:write")
        for verb in ("cancel", "pause", "resume", "retry")
    ),
    Route(method="GET", path="/v1/trainings/{training_id}/events", scope="trainings:read"),
    Route(method="GET", path="/v1/adapters", scope="adapters:read"),
    Route(method="GET", path="/v1/adapter-versions", scope="adapters:read"),
    Route(method="GET", path=_ADAPTER, scope="adapters:read"),
    Route(method="GET", path=_ADAPTER + "/versions", scope="adapters:read"),
    Route(method="GET", path=_VERSION, scope="adapters:read"),
    Route(method="GET", path=_ADAPTER + "/difference", scope="adapters:read", query={"old": "1", "new": "1"}),
    Route(method="GET", path=_ADAPTER + "/history", scope="adapters:read"),
    Route(method="GET", path=_ADAPTER + "/aliases/{alias}", scope="adapters:read"),
    Route(
        method="PUT", path=_ADAPTER + "/aliases/{alias}", scope="adapters:write", body={"version_id": VERSION_ID, **WHY}
    ),
    Route(method="POST", path=_ADAPTER + "/promote", scope="adapters:write", body={}),
    Route(method="POST", path=_ADAPTER + "/rollback", scope="adapters:write", body={}),
    Route(method="POST", path=_ADAPTER + "/suspend", scope="adapters:write", body=WHY),
    Route(method="POST", path=_ADAPTER + "/resume", scope="adapters:write", body=WHY),
    Route(method="POST", path=_VERSION + "/suspend", scope="adapters:write", body=WHY),
    Route(method="POST", path=_VERSION + "/resume", scope="adapters:write", body=WHY),
    Route(method="POST", path=_VERSION + "/retire", scope="adapters:write", body=WHY),
    Route(method="GET", path="/v1/usage", scope="usage:read"),
    Route(method="GET", path="/v1/models", scope="chat"),
    Route(method="GET", path="/v1/models/{model}", scope="chat"),
    Route(
        method="POST",
        path="/v1/chat/completions",
        scope="chat",
        body={"model": "users/ann", "messages": [{"role": "user", "content": "hello"}]},
    ),
    Route(method="GET", path=_USER + "/erasure", scope="erase"),
    # The last, since from then on nothing else about that user is answered.
    Route(method="POST", path=_USER + "/erasure", scope="erase"),
]


def described(app: FastAPI) -> set[tuple[str, str]]:
    """Return (method, path) of everything that OpenAPI describes."""
    return {(verb.upper(), path) for path, verbs in app.openapi()["paths"].items() for verb in verbs}
