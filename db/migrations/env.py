"""Run migrations: one transaction, one process at a time, on SQLite and PostgreSQL alike."""

from __future__ import annotations

from typing import Any, Literal

from alembic import context
from alembic.migration import MigrationContext
from sqlalchemy import text

from db import definitions
from db.models import Base, UtcDateTime
from db.session import make_engine

LOCK = 4_611_686_018  # any number, as long as it is always the same


def render_item(kind: str, item: Any, _autogenerate: Any) -> str | Literal[False]:
    """Migrations stand alone: they spell out our column types instead of importing the models."""
    if kind == "type" and isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    return False


def run(url: str, to_newest: bool) -> None:
    """Migrate the database at `url`; triggers and views go before and come back with the newest revision."""
    engine = make_engine(url, foreign_keys=False)
    try:
        with engine.connect() as connection, connection.begin():
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
            before = MigrationContext.configure(connection).get_current_revision()
            newest = context.script.get_current_head()
            if to_newest and before == newest and not definitions.missing(connection):
                return  # a server that runs need not wait for us
            definitions.drop(connection)
            context.configure(
                connection=connection,
                target_metadata=Base.metadata,
                render_as_batch=connection.dialect.name == "sqlite",
                render_item=render_item,
                transactional_ddl=True,
            )
            with context.begin_transaction():
                context.run_migrations()
            if context.get_context().get_current_revision() == newest:
                definitions.create(connection)
    finally:
        engine.dispose()


run(context.config.attributes["url"], context.config.attributes.get("to_newest", False))
