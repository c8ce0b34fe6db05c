"""Removing an image takes no longer in a large record: every foreign key that leads to its rows has an index."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import PrimaryKeyConstraint, Table, UniqueConstraint

from db.models import Base
from db.removal import TABLES


def leading(table: Table) -> Iterator[str]:
    """The first column of everything that finds any row of the table."""
    keys = [found for found in table.constraints if isinstance(found, PrimaryKeyConstraint | UniqueConstraint)]
    whole = [found for found in table.indexes if found.dialect_options["sqlite"]["where"] is None]
    for found in (*keys, *whole):
        yield from [column.name for column in found.columns][:1]


def test_every_foreign_key_to_what_may_go_has_an_index() -> None:
    slow = [
        f"{table.name}.{key.parent.name}"
        for table in Base.metadata.sorted_tables
        for key in table.foreign_keys
        if key.column.table in TABLES and key.parent.name not in leading(table)
    ]
    assert slow == []
