"""Bring a database to the schema this code expects, or back."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from db import definitions
from db.session import make_engine, parse_url


def _config(url: str) -> Config:
    config = Config()
    config.set_main_option("script_location", "db:migrations")
    config.set_main_option("file_template", "v%%(year)d_%%(month).2d_%%(day).2d_%%(slug)s")
    config.attributes["url"] = url  # not a main option: those interpolate "%" in passwords
    return config


def _sqlite_file(url: str) -> Path | None:
    parsed = parse_url(url)
    return Path(parsed.database or "") if parsed.get_backend_name() == "sqlite" else None


def upgrade(url: str, revision: str = "head") -> None:
    """Migrate up to `revision`, in one transaction. Safe to call from several processes at once.

    A SQLite file and its folder are created where they are missing.
    """
    file = _sqlite_file(url)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
    config = _config(url)
    config.attributes["to_newest"] = revision == "head"
    command.upgrade(config, revision)


def downgrade(url: str, revision: str) -> None:
    """Migrate down to `revision` ("base" for an empty database), in one transaction."""
    command.downgrade(_config(url), revision)


def current(url: str) -> str | None:
    """The revision the database is at, None when it was never migrated. Creates nothing."""
    file = _sqlite_file(url)
    if file is not None and not file.exists():
        return None
    engine = make_engine(url)
    try:
        with engine.connect() as connection:
            return revision_of(connection)
    finally:
        engine.dispose()


def revision_of(connection: Connection) -> str | None:
    """The revision as this connection's transaction sees it."""
    return MigrationContext.configure(connection).get_current_revision()


def head() -> str | None:
    """The newest revision this code knows."""
    return ScriptDirectory.from_config(_config("")).get_current_head()


def knows(revision: str) -> bool:
    """Whether this code can bring a database to this revision."""
    return any(known.revision == revision for known in ScriptDirectory.from_config(_config("")).walk_revisions())


def pending(url: str) -> bool:
    """Whether the database lacks a migration of this code."""
    return current(url) != head()


def missing(url: str) -> list[str]:
    """Names of triggers and views that somebody has dropped from a database at head; `upgrade` makes them anew."""
    engine = make_engine(url)
    try:
        with engine.connect() as connection:
            return definitions.missing(connection)
    finally:
        engine.dispose()


def write_revision(url: str, message: str) -> None:
    """Write the next dated migration from the difference between `url` (at head) and the models."""
    command.revision(_config(url), message=message, autogenerate=True)
