"""A tenant's own bank: whole, or what it adds to the standard one.

A document with ``extends: lorry.standard`` has topics of its own before the standard's; one of the same name replaces
the standard's, and `leave_out` names those not asked at all. The version of what comes out names both, so that a
profile says what it was asked even after the standard has moved on.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from serving.errors import BankInvalid
from serving.extraction.bank.bank import Bank, Topic
from serving.extraction.bank.document import read_document, validated

_Identifier = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.]{0,63}$")]


class Extension(BaseModel):
    """What a tenant adds to the standard bank, and what of it they do not want."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: _Identifier
    version: str = Field(min_length=1, max_length=100)
    extends: Literal["lorry.standard"]
    leave_out: tuple[_Identifier, ...] = Field((), max_length=50)
    topics: tuple[Topic, ...] = Field((), max_length=50)


def assemble(text: str, *, standard: Bank, name: str = "the bank") -> Bank:
    """Return the bank that a tenant's document makes.

    Args:
        text: the YAML document.
        standard: the bank that Lorry ships.
        name: what refusals call the document.

    Raises:
        BankInvalid: naming the entry and the reason.
    """
    value = read_document(text, name=name)
    if "extends" not in value:
        bank = validated(Bank, value, name=name)
        if bank.name == standard.name:
            raise BankInvalid(f"{name}: name: {standard.name} is Lorry's own: choose another", field="name")
        return bank
    extension = validated(Extension, value, name=name)
    unknown = sorted(set(extension.leave_out) - {topic.topic for topic in standard.topics})
    if unknown:
        raise BankInvalid(f"{name}: leave_out: the standard bank has no topic {unknown[0]!r}", field="leave_out")
    own = {topic.topic for topic in extension.topics}
    inherited = [t for t in standard.topics if t.topic not in own and t.topic not in extension.leave_out]
    document = {
        "name": extension.name,
        "version": f"{extension.version}+{standard.name}.{standard.version}",
        "topics": [*extension.topics, *inherited],
    }
    return validated(Bank, document, name=name)
