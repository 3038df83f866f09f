"""Run by alembic: migrate over the connection that evo.record hands in, inside its transaction."""

from __future__ import annotations

from alembic import context

from evo.record.schema import Base

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=Base.metadata,
    transactional_ddl=True,
    render_as_batch=connection.dialect.name == "sqlite",
)
context.run_migrations()
