"""Correcting a profile: what a person decides is kept, and the files of the home are written again with it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from lorry.context import Context
from lorry.stages.extracting import rewrite_user_profile
from serving.extraction.corrections.service import Corrections
from serving.gateway.idempotency.repository import RequestRepository


@dataclass(frozen=True, kw_only=True)
class Deed:
    """One thing that a person does to a profile: `fact` is an id or a text, or the id of the correction to withdraw."""

    kind: Literal["confirm", "correct", "forbid", "withdraw"]
    fact: str
    to: str = ""


async def correct_user_profile(context: Context, *, user: str, deed: Deed, by: str) -> dict[str, Any]:
    """Do it, and return what is in force now: the correction, or the id of the one withdrawn.

    Raises:
        FactNotFound, CorrectionNotFound, CorrectionInvalid: as `Corrections` does; nothing is changed then.
    """
    corrections = Corrections(context.database, tenant=context.settings.tenant)
    done: dict[str, Any]
    match deed.kind:
        case "confirm":
            done = asdict(await corrections.confirm(user, deed.fact, by=by))
        case "correct":
            done = asdict(await corrections.edit(user, deed.fact, text=deed.to, by=by))
        case "forbid":
            done = asdict(await corrections.forbid(user, deed.fact, by=by))
        case "withdraw":
            await corrections.withdraw(user, int(deed.fact), by=by)
            done = {"id": int(deed.fact), "kind": "withdraw", "text": "", "withdrawn_by": by}
    async with context.database.transaction() as session:  # a gateway repeats no profile that states what was corrected
        await RequestRepository(session).erase(tenant=context.settings.tenant, user=user)
    done.pop("statement", None)
    await rewrite_user_profile(context, user=user)
    return {**done, "user": user}
