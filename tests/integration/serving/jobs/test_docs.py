"""What docs/extractions.md shows is so; the tables are as the models say."""

from __future__ import annotations

import re
import time
from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from prometheus_client import generate_latest
from sqlalchemy import Connection

from kit.database import Base, Database
from serving.jobs import models
from serving.jobs.metrics import ExtractionMetrics
from serving.jobs.settings import ExtractionWorkerSettings
from serving.jobs.webhooks.signature import sign

PAGE = (Path(__file__).parents[4] / "docs" / "extractions.md").read_text()


def test_the_receivers_example_takes_our_messages_and_no_others() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    found: dict[str, object] = {}
    exec(example, found)
    is_lorrys = found["is_lorrys"]
    assert callable(is_lorrys)
    header = sign(["whsec_new", "whsec_old"], timestamp=int(time.time()), body=b"{}")
    assert is_lorrys(header, b"{}", "whsec_new")
    assert is_lorrys(header, b"{}", "whsec_old")
    assert not is_lorrys(header, b"{} ", "whsec_new")
    assert not is_lorrys(header, b"{}", "whsec_other")


def test_every_setting_that_the_page_names_exists_and_every_measure_is_named() -> None:
    fields = {f"LORRY_{name.upper()}" for name in ExtractionWorkerSettings.model_fields}
    named = {name for name in re.findall(r"LORRY_[A-Z0-9_]+[A-Z0-9]", PAGE) if name != "LORRY_S3"}
    assert named <= fields, named - fields
    measures = re.findall(
        r"^# TYPE (lorry_\w+) (?!.*_created)", generate_latest(ExtractionMetrics().collectors).decode(), re.M
    )
    for measure in measures:
        if not measure.endswith("_created"):
            assert f"`{measure}`" in PAGE, measure


async def test_the_tables_are_as_the_models_say(database: Database) -> None:
    tables = {row.__tablename__ for row in vars(models).values() if hasattr(row, "__tablename__")}

    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(
            connection,
            opts={
                "include_name": lambda name, kind, parents: kind != "table" or name in tables,
                "include_object": lambda item, name, kind, reflected, other: kind != "table" or name in tables,
                "compare_server_default": False,
            },
        )
        return list(compare_metadata(context, Base.metadata))

    async with database.engine.connect() as connection:
        assert await connection.run_sync(differences) == []
    assert len(tables) == 5
