"""Tenants' question banks in a real PostgreSQL."""

from __future__ import annotations

import asyncio

import pytest

from kit.database import Database
from serving.errors import BankInvalid
from serving.extraction.bank import standard_bank
from serving.extraction.bank.shelf import BankShelf

ADDED = """
name: acme.bank
version: "1"
extends: lorry.standard
leave_out: [opinions]
topics:
  - topic: tools
    title: Tools
    cues: [hammer, drill]
    questions:
      - id: tools.own
        paraphrases: ["Which tools do you use?", "What is in your toolbox?"]
        answer_schema: {type: string, maxLength: 160}
"""


async def test_a_tenant_without_a_bank_is_asked_the_standard_one(database: Database) -> None:
    shelf = BankShelf(database)
    assert (await shelf.bank_of("t"), await shelf.kept("t")) == (standard_bank(), None)


async def test_a_tenant_adds_topics_and_leaves_some_out_and_others_do_not_notice(database: Database) -> None:
    shelf = BankShelf(database)
    kept = await shelf.put("t", ADDED, by="bob")
    assert (kept.revision, kept.made_by, kept.document) == (1, "bob", ADDED)
    bank = await shelf.bank_of("t")
    topics = [topic.topic for topic in bank.topics]
    assert topics[0] == "tools"
    assert set(topics[1:]) == {topic.topic for topic in standard_bank().topics} - {"opinions"}
    assert (bank.name, bank.version) == ("acme.bank", f"1+lorry.standard.{standard_bank().version}")
    assert await shelf.bank_of("u") == standard_bank()


async def test_the_same_bank_again_is_no_new_revision_and_going_back_is_one(database: Database) -> None:
    shelf = BankShelf(database)
    assert (await shelf.put("t", ADDED, by="a")).revision == (await shelf.put("t", ADDED, by="b")).revision == 1
    assert (await shelf.put("t", None, by="c")).revision == 2
    assert await shelf.bank_of("t") == standard_bank()
    assert (await shelf.put("t", ADDED, by="d")).revision == 3
    assert [each.made_by for each in await shelf.revisions("t")] == ["d", "c", "a"]


async def test_another_content_under_a_used_version_is_refused_and_nothing_is_kept(database: Database) -> None:
    shelf = BankShelf(database)
    await shelf.put("t", ADDED, by="a")
    with pytest.raises(BankInvalid, match="revision 1") as refused:
        await shelf.put("t", ADDED.replace("hammer", "saw"), by="a")
    assert refused.value.field == "version"
    await shelf.put("t", ADDED.replace("hammer", "saw").replace('"1"', '"2"'), by="a")
    assert len(await shelf.revisions("t")) == 2


async def test_a_bad_bank_is_refused_and_the_one_before_stays(database: Database) -> None:
    shelf = BankShelf(database)
    await shelf.put("t", ADDED, by="a")
    for bad in ("{", ADDED.replace("cues", "clues"), ADDED.replace("[opinions]", "[nothing]")):
        with pytest.raises(BankInvalid):
            await shelf.put("t", bad, by="a")
    assert (await shelf.bank_of("t")).topics[0].topic == "tools"


async def test_many_who_set_banks_at_once_make_one_revision_each(database: Database) -> None:
    shelf = BankShelf(database)
    await asyncio.gather(*(shelf.put("t", ADDED.replace('"1"', f'"{n}"'), by="a") for n in range(1, 9)))
    assert sorted(each.revision for each in await shelf.revisions("t")) == list(range(1, 9))
