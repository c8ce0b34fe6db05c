"""Triggers and views: code that lives in the database. A migration drops them all, and the newest one makes them anew.

So a table may be rebuilt without minding what looks at it, and there is one text of each definition. A change of any
needs a new revision, empty if need be, that carries the new fingerprint; a test compares them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

from sqlalchemy import Connection, Dialect, inspect, text
from sqlalchemy.dialects import postgresql, sqlite

from db import derived, guards, views_cells, views_counts, views_life, views_models, views_operations, views_people
from db.views import View

_NAME = re.compile(r"CREATE (?:TRIGGER|VIEW) (\w+)")

VIEWS: tuple[View, ...] = (
    *views_cells.VIEWS,
    *views_life.VIEWS,
    *views_models.VIEWS,
    *views_operations.VIEWS,
    *views_people.VIEWS,
    *views_counts.VIEWS,
)


def statements(dialect: Dialect) -> Iterator[str]:
    """Everything that creates the triggers and views on this engine."""
    if dialect.name == "sqlite":
        yield from derived.SQLITE
        yield from guards.sqlite()
    else:
        yield from derived.POSTGRESQL
        yield from guards.postgresql()
    for view in VIEWS:
        yield view.sql(dialect)


def create(connection: Connection) -> None:
    """Make them all. None may be there yet."""
    for statement in statements(connection.dialect):
        connection.exec_driver_sql(statement)


def missing(connection: Connection) -> list[str]:
    """Triggers and views that should be there and are not, by name."""
    made = (_NAME.search(statement) for statement in statements(connection.dialect))
    wanted = {found.group(1) for found in made if found is not None}
    triggers = {
        "sqlite": "SELECT name FROM sqlite_master WHERE type = 'trigger'",
        "postgresql": "SELECT t.tgname FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid "
        "JOIN pg_namespace AS n ON n.oid = c.relnamespace "
        "WHERE n.nspname = current_schema() AND t.tgenabled <> 'D'",
    }
    there = {*inspect(connection).get_view_names(), *connection.scalars(text(triggers[connection.dialect.name]))}
    return sorted(wanted - there)


def drop(connection: Connection) -> None:
    """Remove every view, trigger and function of ours, of whatever revision."""
    for name in inspect(connection).get_view_names():
        if name.startswith("v_"):
            cascade = "" if connection.dialect.name == "sqlite" else " CASCADE"
            connection.exec_driver_sql(f"DROP VIEW IF EXISTS {name}{cascade}")
    if connection.dialect.name == "sqlite":
        found = connection.scalars(text("SELECT name FROM sqlite_master WHERE type = 'trigger'")).all()
        ours = [name for name in found if name.startswith(("guard_", "derive_"))]
        for name in ours:
            connection.exec_driver_sql(f"DROP TRIGGER {name}")
        return
    functions = text(
        "SELECT p.proname FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace "
        "WHERE n.nspname = current_schema() AND p.prorettype = 'trigger'::regtype"
    )
    for name in connection.scalars(functions).all():
        if name.startswith(("cellloop_guard_", "cellloop_derive_")):
            connection.exec_driver_sql(f"DROP FUNCTION {name}() CASCADE")


def fingerprint() -> str:
    """sha256 over all definitions on both engines."""
    text_of_all = "\n".join(
        statement for dialect in (sqlite.dialect(), postgresql.dialect()) for statement in statements(dialect)
    )
    return hashlib.sha256(text_of_all.encode()).hexdigest()
