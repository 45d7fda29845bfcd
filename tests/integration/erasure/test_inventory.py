"""docs/erasure.md names every place that holds something of a user, and every such place is guarded."""

from __future__ import annotations

import re
from pathlib import Path

from kit.database import Database
from lorry.erasure import files
from serving.erasure.report import STORES
from tests.support.steering import rows

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "erasure.md").read_text()
# Tables that name a user and may be written to while that user is erased, and why.
UNGUARDED = {
    "turn": "no turn is without its transcript",
    "erasure": "it is the sign itself",
    "suspension": "stopping somebody from being served is no harm; the registry forgets it with the name",
}


async def test_every_table_is_named_by_the_inventory(database: Database) -> None:
    tables = {
        row[0]
        for row in await rows(
            database, "select relname from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace"
        )
    }
    unnamed = {table for table in tables - {"alembic_version"} if f"`{table}`" not in PAGE}
    assert not unnamed, f"docs/erasure.md does not say what of a user lies in {sorted(unnamed)}"
    gone = set(re.findall(r"^\| `([a-z_]+)`", PAGE, re.MULTILINE)) - tables - set(STORES)
    assert not gone, f"docs/erasure.md names tables that are not there: {sorted(gone)}"


async def test_every_table_that_names_a_user_refuses_those_who_are_erased(database: Database) -> None:
    named = {
        row[0]
        for row in await rows(
            database,
            "select c.relname from pg_class c join pg_attribute a on a.attrelid = c.oid"
            " where c.relkind = 'r' and c.relnamespace = 'public'::regnamespace and a.attname = 'user_id'",
        )
    }
    guarded = {
        row[0]
        for row in await rows(
            database,
            "select c.relname from pg_trigger t join pg_class c on c.oid = t.tgrelid"
            " where t.tgname like 'refuse_eras%' or t.tgname like 'hide_eras%'",
        )
    }
    open_tables = named - guarded - set(UNGUARDED)
    assert not open_tables, (
        f"nothing keeps rows of users who are erased out of {sorted(open_tables)}: see migration 0012"
    )


def test_every_directory_of_a_home_is_named_by_the_inventory() -> None:
    source = "\n".join(path.read_text() for path in (ROOT / "lorry").rglob("*.py"))
    first = set(re.findall(r"\.(?:folder|user_folder)\(\s*\"([a-z]+)\"", source)) | {files.RIVALS, *files.KINDS}
    unnamed = {name for name in first if f"`{name}/`" not in PAGE}
    assert not unnamed, f"docs/erasure.md does not say what of a user lies in {sorted(unnamed)} of a LORRY_HOME"


def test_every_folder_of_users_is_one_that_an_erasure_clears() -> None:
    source = "\n".join(path.read_text() for path in (ROOT / "lorry").rglob("*.py"))
    kinds = set(re.findall(r"user_folder\(\s*\"([a-z]+)\"", source))
    assert kinds <= set(files.KINDS), f"lorry/erasure/files.py does not clear {sorted(kinds - set(files.KINDS))}"


def test_every_prefix_of_the_object_store_is_named_by_the_inventory() -> None:
    layout = (ROOT / "registry" / "publishing" / "layout.py").read_text()
    prefixes = set(re.findall(r"^[A-Z]+ = \"([a-z]+/)\"", layout, re.MULTILINE))
    assert prefixes
    vault = re.search(r"/users/\{[^}]*\}/([a-z]+)/", (ROOT / "serving" / "jobs" / "vault.py").read_text())
    assert vault is not None
    assert not {each for each in {*prefixes, f"tenants/<tenant>/users/<user>/{vault[1]}/"} if f"`{each}" not in PAGE}


def test_only_rooms_that_the_inventory_knows_put_objects_away() -> None:
    given = {
        str(path.relative_to(ROOT))
        for room in ("registry", "serving", "training", "transcripts", "lorry")
        for path in (ROOT / room).rglob("*.py")
        if "import ObjectStorage" in path.read_text()
    }
    known = {"lorry/bucket.py", "lorry/local", "registry", "registry/lifecycle", "registry/publishing", "serving/jobs"}
    strangers = {each for each in given if not any(each == room or each.startswith(f"{room}/") for room in known)}
    assert not strangers, f"docs/erasure.md does not say what {sorted(strangers)} put into the object store"


def test_every_store_of_the_report_is_explained() -> None:
    unnamed = {store for store in STORES if f"`{store}`" not in PAGE}
    assert not unnamed, f"docs/erasure.md does not explain {sorted(unnamed)}"
