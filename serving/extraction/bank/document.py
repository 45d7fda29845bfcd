"""A bank's YAML as data, whoever wrote it: bounded in size and depth, with no more in it than it shows."""

from __future__ import annotations

from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from yaml.constructor import ConstructorError

from serving.errors import BankInvalid

M = TypeVar("M", bound=BaseModel)
MOST_CHARACTERS = 64 * 1024
_MOST_NODES = 50_000
_MOST_DEPTH = 20
_MOST_DIGITS = 20
_MERGE = "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    """YAML without what costs more than it shows.

    ``<<`` copies mappings into one another before anybody could count them, so that a few lines fill the memory; a
    number of base 60 (``1:1:1…``) takes time quadratic in its length, and overflows.
    """

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Refuse ``<<``; everything else is merged nowhere."""
        for key, _ in node.value:
            if key.tag == _MERGE:
                raise ConstructorError(None, None, "`<<` is not known here", key.start_mark)
        super().flatten_mapping(node)

    def bounded_number(self, node: yaml.ScalarNode) -> Any:
        """Return a number that is no longer than a bank's are."""
        if len(node.value) > _MOST_DIGITS or ":" in node.value:
            raise ConstructorError(None, None, "is no number that is known here", node.start_mark)
        is_whole = node.tag.endswith(":int")
        return self.construct_yaml_int(node) if is_whole else self.construct_yaml_float(node)


for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _Loader.bounded_number)


def read_document(text: str, *, name: str) -> dict[str, Any]:
    """Return the mapping that a bank's YAML holds.

    Raises:
        BankInvalid: naming `name` and the reason: no YAML, no mapping, too large, or anchors that multiply themselves.
    """
    if len(text) > MOST_CHARACTERS:
        raise BankInvalid(f"{name} is longer than {MOST_CHARACTERS} characters", field=name)
    try:
        value = yaml.load(text, Loader=_Loader)
        _count(value, left=_MOST_NODES, depth=0)
    except yaml.YAMLError as exc:
        raise BankInvalid(f"{name} is not YAML: {exc}", field=name) from exc
    except (ValueError, RecursionError) as exc:
        reason = str(exc) if isinstance(exc, ValueError) else "it is nested too deeply"
        raise BankInvalid(f"{name} cannot be used: {reason}", field=name) from exc
    if not isinstance(value, dict):
        raise BankInvalid(f"{name} must hold name, version and topics", field=name)
    # The shared schema stands at the top of the file only so that YAML can anchor it.
    value.pop("answer_schema", None)
    return value


def validated(model: type[M], value: dict[str, Any], *, name: str) -> M:
    """Return the model that a document holds.

    Raises:
        BankInvalid: naming `name`, the entry and the reason.
    """
    try:
        return model.model_validate(value)
    except ValidationError as exc:
        first = exc.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or name
        raise BankInvalid(f"{name}: {field}: {first['msg'].removeprefix('Value error, ')}", field=field) from exc


def _count(value: Any, *, left: int, depth: int) -> int:
    """Return how many more nodes may come, each counted as often as it is used."""
    if depth > _MOST_DEPTH:
        raise ValueError(f"it is nested more than {_MOST_DEPTH} deep")
    left -= 1
    if left < 0:
        raise ValueError(f"it holds more than {_MOST_NODES} entries")
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for child in children:
        left = _count(child, left=left, depth=depth + 1)
    return left
