"""How Alembic reaches the database: `lorry.schema.migrate` hands it a connection."""

from __future__ import annotations

from alembic import context

from kit.database import Base

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=Base.metadata, transaction_per_migration=True)
with context.begin_transaction():
    context.run_migrations()
