"""Every column of every view is explained, once, and the words keep up with the enums."""

from __future__ import annotations

from sqlalchemy import Enum

from db.definitions import VIEWS
from db.glossary import COLUMNS


def test_every_column_is_explained_once() -> None:
    by_itself: set[str] = set()
    for view in VIEWS:
        columns = set(view.table.c.keys())
        assert set(view.words) <= columns, view.name
        assert [name for name in view.words if view.words[name] == COLUMNS.get(name)] == [], view.name
        assert all(view.meaning(name) for name in columns)
        by_itself |= columns - set(view.words)
    assert set(COLUMNS) == by_itself  # no word that no view needs


def test_every_value_of_an_enum_is_named() -> None:
    enums = [(view, c) for view in VIEWS for c in view.table.columns if isinstance(c.type, Enum)]
    assert enums
    for view, column in enums:
        missing = [value for value in column.type.enums if value not in view.meaning(column.name)]
        assert missing == [], (view.name, column.name)
