"""The one rule for names that people give: tenants, users, adapters, aliases.

A name is opaque: 1 to 128 of ``A-Z a-z 0-9 . _ : -``. Names become path segments and object
keys, so ``.`` and ``..`` alone are refused as well.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, WithJsonSchema

from kit.errors import InvalidName

_NAME = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)


def check_name(value: str, *, field: str = "name") -> str:
    """Return `value` unchanged.

    Raises:
        InvalidName: naming `field`, when the value breaks the rule.
    """
    if _NAME.fullmatch(value) is None or value in {".", ".."}:
        raise InvalidName(f"{field} {value[:140]!r} must be 1 to 128 of A-Z a-z 0-9 . _ : -", field=field)
    return value


def _validate(value: str) -> str:
    try:
        return check_name(value)
    except InvalidName as exc:
        raise ValueError(exc.message) from exc


# As pages of an API say it, so that a caller's own tools refuse what would be refused here.
_AS_JSON = WithJsonSchema({"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,128}$", "not": {"enum": [".", ".."]}})
Name = Annotated[str, AfterValidator(_validate), _AS_JSON]
