"""`python -m lorry.registry_page`: every route of the registry as a page of Markdown, from its own OpenAPI."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from typing import Any, Final

from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic import SecretStr

from registry.access import Role
from registry.app import create_app
from registry.openapi import kept_answers
from registry.settings import RegistrySettings

_EVERYWHERE: Final = ("401", "403", "405", "413", "422", "503")
_HEAD = """# The registry's API

Written by `python -m lorry.registry_page`; a test compares it with the code.

The registry is started by `lorry up`, on port 18300 (`LORRY_PORT_BASE`), or alone by `python -m registry`, on port 8081
(`LORRY_REGISTRY_PORT`; [registry-alone.md](registry-alone.md) says what it needs). It is for operators, trainers and
engines inside your network; users and their applications talk to the gateway ([api.md](api.md)). `GET /openapi.json`
describes every route, `/docs` shows it in a browser. From Python, use `registry.client.RegistryClient`; from a shell,
`lorry adapters`, `lorry bases`, `lorry engines`, `lorry registry`, or curl:

```
lorry up                                             # in one shell; it prints the URL and where the token is
URL=http://127.0.0.1:18300 TOKEN=$(cat ~/.lorry/secrets/registry-token)                          # in another
curl -H "Authorization: Bearer $TOKEN" $URL/v1/bases
curl -H "Authorization: Bearer $TOKEN" "$URL/v1/tenants/default/adapters?limit=10"
curl -H "Authorization: Bearer $TOKEN" -H "Content-Type: application/json" -H "X-Lorry-Actor: grace" \\
  -d '{"why": "ticket 7"}' $URL/v1/tenants/default/users/ada/suspend
```

`lorry up` makes the token once and keeps it in `$LORRY_HOME/secrets/registry-token` (`~/.lorry` unless `LORRY_HOME` is
set), unless `LORRY_REGISTRY_TOKEN` gives one.

- **Token.** `Authorization: Bearer …`. An *operator* (`LORRY_REGISTRY_TOKEN`) may do everything; an *engine*
  (`LORRY_REGISTRY_ENGINE_TOKEN`) only what says so below. `X-Lorry-Actor` names the calling program in the audit trail.
- **Names.** `{tenant}`, `{adapter}`, `{alias}`: 1 to 128 of `A-Z a-z 0-9 . _ : -`. `{user}` is such a name, or `~` for
  what the whole tenant shares. `{selector}` is an alias or a version number. `{version_id}` is opaque.
- **Pages.** Lists take `limit` (at most 1000) and `cursor`, the `next_cursor` of the page before. A page begins after a
  key, not at a row number: page 10,000 costs what page one costs, and rows that come or go neither repeat nor hide
  others.
- **Conditions.** Answers with an `ETag` take `If-None-Match` (304). `PUT …/aliases/{alias}` takes `expected_version_id`
  (409 when the alias has moved), or `If-Match` with the alias's ETag, or `If-None-Match: *` (412).
- **Repeating.** Every call may be repeated. For a day, the POSTs marked ↻ below answer a repeated `Idempotency-Key` as
  they did the first time (`Idempotency-Replayed: true`), and the same key with another request is 422. The answers of
  every other POST are not kept, because they hold keys, signed URLs, names or free text, which an erasure would have to
  find: there the same key is refused only while the first request still runs (409, or 422 with another request), and
  what comes later is run as if it had no key. Nor are refusals kept. Other methods take no notice of the header.
- **Refusals** are problem details (RFC 9457): decide by `type`, show `detail`; `field` names the offending input, and
  invalid requests list all in `errors`. Bodies that are not UTF-8, hold NUL or half of a
  surrogate pair, or nest deeper than 64 levels are refused.

Every route can answer 401 (no valid token), 403 (not for this role), 413 (body too large), 422 (invalid input) and 503
(the database or the object store does not answer; `Retry-After`); every path answers 405 to methods that it does not
take, and names in `Allow` those that it does. What else a route can answer is listed.

↻ = an `Idempotency-Key` is honoured.

| route | role | what | other refusals |
|---|---|---|---|
"""


def page() -> str:
    """Return the whole page."""
    settings = RegistrySettings(database_url="postgresql+asyncpg://x/x", registry_token=SecretStr("x" * 16))
    app = create_app(settings)
    paths: dict[str, Any] = app.openapi()["paths"]
    engines, kept = _routes_of_engines(app.routes), kept_answers(app)
    rows = [
        _row(verb, path, operation, engine=(verb, path) in engines, kept=(verb, path) in kept)
        for path, operations in paths.items()
        for verb, operation in operations.items()
        if path.startswith("/v1")
    ]
    return _HEAD + "\n".join(sorted(rows)) + "\n"


def _row(verb: str, path: str, operation: dict[str, Any], *, engine: bool, kept: bool) -> str:
    refusals = [status for status in sorted(operation["responses"]) if status >= "400" and status not in _EVERYWHERE]
    what = operation["description"].split("\n\n")[0].replace("\n", " ").replace("|", "\\|")
    role = "operator, engine" if engine else "operator"
    return f"| `{verb.upper()} {path}`{' ↻' if kept else ''} | {role} | {what} | {', '.join(refusals) or '—'} |"


def _routes_of_engines(routes: Any) -> set[tuple[str, str]]:
    """Return (verb, path) of every route that an engine's token opens."""
    found = set()
    for route in routes:
        if isinstance(route, APIRoute) and Role.ENGINE in _roles(route.dependant):
            found |= {(verb.lower(), _plain(route.path)) for verb in route.methods}
    return found


def _roles(dependant: Dependant) -> Iterator[Role]:
    """Yield what `registry.access.require` was told, wherever in a route's dependencies it stands."""
    for each in dependant.dependencies:
        if each.call is not None and getattr(each.call, "__qualname__", "").startswith("require."):
            yield from inspect.getclosurevars(each.call).nonlocals["roles"]
        yield from _roles(each)


def _plain(path: str) -> str:
    return path.replace(":path}", "}")


if __name__ == "__main__":
    sys.stdout.write(page())
