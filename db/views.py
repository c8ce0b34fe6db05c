"""Stable views `v_*` for any SQL client. The commands and the REST interface ask them, too.

They are defined in `db/views_cells.py`, `db/views_life.py`, `db/views_models.py`, `db/views_people.py` and
`db/views_counts.py`, what their columns mean is said in `db/glossary.py`, and `docs/views.md` shows both. Columns may
be added; none is renamed or removed without a new name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Dialect,
    GenerativeSelect,
    MetaData,
    String,
    Table,
    case,
    cast,
    null,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from db.glossary import COLUMNS


@dataclass(frozen=True)
class View:
    """A view: its name, what its rows are, its query, and columns that are different for every row, in its order.

    words: what columns mean that mean something of their own here, or more than in other views.
    """

    name: str
    about: str
    query: GenerativeSelect
    key: tuple[str, ...]
    words: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def table(self) -> Table:
        """To select from, with the types of the query's columns."""
        columns = [Column(column.name, column.type) for column in self.query.selected_columns]
        return Table(self.name, MetaData(), *columns)

    def meaning(self, column: str) -> str:
        """What this column of the view means."""
        return self.words.get(column) or COLUMNS[column]

    def sql(self, dialect: Dialect) -> str:
        """The statement that creates it."""
        body = self.query.compile(dialect=dialect, compile_kwargs={"literal_binds": True})
        return f"CREATE VIEW {self.name} AS {body}"


class utc_day(FunctionElement[str]):
    """The day of a moment in UTC, as text: 2026-11-26."""

    type = String()
    inherit_cache = True
    name = "utc_day"


@compiles(utc_day, "sqlite")
def _sqlite_day(element: utc_day, compiler: Any, **options: Any) -> str:
    return f"substr({compiler.process(element.clauses, **options)}, 1, 10)"


@compiles(utc_day, "postgresql")
def _postgresql_day(element: utc_day, compiler: Any, **options: Any) -> str:
    return f"to_char({compiler.process(element.clauses, **options)} AT TIME ZONE 'UTC', 'YYYY-MM-DD')"


def typed_null(of: Any) -> ColumnElement[Any]:
    """NULL of this type: PostgreSQL must know it where queries are united."""
    return cast(null(), of)


def one_if(condition: ColumnElement[bool]) -> ColumnElement[int]:
    """1 where the condition holds, else 0: to be summed."""
    return case((condition, 1), else_=0)


def events(shape: dict[str, Any], **found: Any) -> list[ColumnElement[Any]]:
    """The columns of one kind of event, in the order of `shape`; NULL for what this kind does not have."""
    unknown = set(found) - set(shape)
    assert not unknown, unknown
    return [
        (found[name] if name in found else typed_null(of)).label(name)  # typed: branches of a union must agree
        for name, of in shape.items()
    ]
