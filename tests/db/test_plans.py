"""Plans tell when a table is read from end to end, and when only some of it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Select, func, select

from db import plans
from db.bulk import insert_rows
from db.models import Base, Cell, Image, now
from db.session import Database
from tests import builders

CELLS = 20_000  # PostgreSQL reads a small table whole, and rightly so


@pytest.fixture
def scans(database: Database) -> Callable[[Select[Any]], list[str]]:
    """Which tables a question reads from end to end, in a record of many cells."""
    with database.session() as session:
        images = [builders.add_image(session).id for _ in range(10)]
        rows = [(number, images[number % 10], f"k{number}", now()) for number in range(1, CELLS + 1)]
        insert_rows(session.connection(), Base.metadata.tables["cells"], [rows])
    plans.settle(database.engine)

    def ask(query: Select[Any]) -> list[str]:
        with plans.watched() as seen, database.session(read_only=True) as session:
            session.execute(query).all()
        [statement] = [each for each in seen if "FROM" in each.sql]
        with database.engine.connect() as connection:
            return plans.full_scans(connection, statement, ["cells"])

    return ask


def test_what_grows_with_the_table_is_seen(scans: Callable[[Select[Any]], list[str]]) -> None:
    assert scans(select(Cell.id, Cell.key)) == ["cells"]
    assert scans(select(func.count()).select_from(Cell)) == ["cells"], "by an index, but all of it"
    assert scans(select(Cell.id).where(Cell.key.like("%9"))) == ["cells"]
    assert scans(select(Cell.key).where(Cell.created_at < now()).limit(5)) == ["cells"], "passes over what is newer"
    inside = select(func.max(Cell.created_at)).scalar_subquery()
    assert scans(select(Image.id, inside)) == ["cells"]


def test_what_does_not_grow_is_not(scans: Callable[[Select[Any]], list[str]]) -> None:
    assert scans(select(Cell.key).where(Cell.id == 7)) == []
    assert scans(select(Cell.id).where(Cell.key == "k7")) == []
    assert scans(select(Cell.id).order_by(Cell.id.desc()).limit(3)) == [], "stops after three"
    assert scans(select(func.max(Cell.id))) == []
