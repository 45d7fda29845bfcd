"""Is this turn its writer's own voice? What others said, quoted, sung, played or joked is not.

Careful rather than clever: a turn with any of these signs supports nothing. A true statement lost is a line less in a
profile; a false one is somebody's words in the wrong mouth.
"""

from __future__ import annotations

import re

_QUOTED = re.compile(r"^\s*>|[\"“”«»]", re.MULTILINE)
_LABELLED = re.compile(r"(?:^|[\s(])[\w'’.-]+\s*:\s+(?:i|i['’]m|i['’]ve|my|we|our)\b", re.IGNORECASE)
_REPORTED = re.compile(
    r"\b(?:said|says|saying|told|tells|wrote|writes|asked|asks|claims|claimed|thinks|believes|assumes|goes(?=,)|lyrics?"
    r"|translate|translation|character|role-?play|pretend\w*|song"
    r"|(?:people|nobody|everyone|everybody|somebody|someone|they|some|you) (?:say|think|believe|assume|claim))\b",
    re.IGNORECASE,
)
_TAKEN_BACK = re.compile(
    r"\b(?:not true|isn['’]?t true|untrue|(?:it['’]?s|is|was) (?:false|a lie)|kidding|joking|jk|sarcas\w+|yeah right"
    r"|as if|hell freezes|no one ever)\b|/s\b|\bnot\s*!",
    re.IGNORECASE,
)


def is_own_voice(turn_text: str) -> bool:
    """Say whether everything in a turn may be taken as meant, and as meant by its writer of themselves."""
    return not any(sign.search(turn_text) for sign in (_QUOTED, _LABELLED, _REPORTED, _TAKEN_BACK))
