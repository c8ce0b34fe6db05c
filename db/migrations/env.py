"""Run migrations: one transaction, one process at a time, on SQLite and PostgreSQL alike."""

from __future__ import annotations

from typing import Any, Literal

from alembic import context
from sqlalchemy import text

from db.models import Base, UtcDateTime
from db.session import make_engine

LOCK = 4_611_686_018  # any number, as long as it is always the same


def render_item(kind: str, item: Any, _autogenerate: Any) -> str | Literal[False]:
    """Migrations stand alone: they spell out our column types instead of importing the models."""
    if kind == "type" and isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    return False


def run(url: str) -> None:
    """Migrate the database at `url`."""
    engine = make_engine(url, foreign_keys=False)
    try:
        with engine.connect() as connection, connection.begin():
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
            context.configure(
                connection=connection,
                target_metadata=Base.metadata,
                render_as_batch=connection.dialect.name == "sqlite",
                render_item=render_item,
                transactional_ddl=True,
            )
            with context.begin_transaction():
                context.run_migrations()
    finally:
        engine.dispose()


run(context.config.attributes["url"])
