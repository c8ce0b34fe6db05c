"""Who read the same cell: histories written out by hand, on both engines."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy.orm import Session

from db import images
from db.double_readings import Reading, double_readings
from db.models import Cell
from db.reviews import IMPORT_EXPERT
from db.session import Database
from tests.builders import add_cell, add_image, at, say

ADA, BOB, AGAIN = "ls:1:1", "ls:1:2", "ls:1:3"


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    with database.session() as session:
        yield session


@pytest.fixture
def cell(session: Session) -> Cell:
    return add_cell(session, add_image(session))


def said(session: Session, imports: bool = False) -> list[tuple[int, str, str | None]]:
    return [(reading.cell_id, reading.expert, reading.label) for reading in double_readings(session, imports)]


def test_one_reader_is_no_double_reading(session: Session, cell: Cell) -> None:
    assert said(session) == []
    say(session, cell, "ring", ADA, minute=0, expert="ada")
    say(session, cell, "schizont", ADA, minute=1, expert="ada")
    assert said(session) == []


def test_each_reader_answers_once_in_the_order_they_decided(session: Session, cell: Cell) -> None:
    say(session, cell, "ring", BOB, minute=9, expert="bob")
    say(session, cell, "ring", ADA, minute=0, expert="ada")
    say(session, cell, "schizont", ADA, minute=3, expert="ada")
    other = add_cell(session, add_image(session))
    say(session, other, "ring", "ls:1:9", expert="ada")
    assert double_readings(session) == [
        Reading(cell.id, cell.image_id, "ada", "schizont", at(3)),
        Reading(cell.id, cell.image_id, "bob", "ring", at(9)),
    ]


def test_no_cell_is_an_answer_and_withdrawn_is_none(session: Session, cell: Cell) -> None:
    say(session, cell, "ring", ADA, minute=0, expert="ada")
    say(session, cell, None, BOB, minute=1, expert="bob")
    assert said(session) == [(cell.id, "ada", "ring"), (cell.id, "bob", None)]
    say(session, cell, None, BOB, minute=2, expert="bob", action="withdrawn")
    assert said(session) == []


def test_the_newest_annotation_of_an_expert_counts(session: Session, cell: Cell) -> None:
    say(session, cell, "schizont", AGAIN, minute=7, expert="ada")
    say(session, cell, "ring", ADA, minute=2, expert="ada")
    assert said(session) == []
    say(session, cell, "ring", BOB, minute=1, expert="bob")
    assert said(session) == [(cell.id, "bob", "ring"), (cell.id, "ada", "schizont")]
    say(session, cell, None, AGAIN, minute=8, expert="ada", action="withdrawn")
    assert said(session) == [(cell.id, "bob", "ring"), (cell.id, "ada", "ring")]


def test_imports_read_only_on_request(session: Session, cell: Cell) -> None:
    say(session, cell, "red blood cell", "import:abc", minute=0, action="imported", expert=IMPORT_EXPERT)
    say(session, cell, "ring", ADA, minute=1, expert="ada")
    assert said(session) == []
    assert said(session, imports=True) == [(cell.id, "import", "red blood cell"), (cell.id, "ada", "ring")]


def test_only_cells_that_the_last_answers_are_about(session: Session, cell: Cell) -> None:
    say(session, cell, "ring", ADA, minute=0, expert="ada")
    say(session, cell, "ring", BOB, minute=1, expert="bob")
    later = add_cell(session, images.get(session, cell.image_id))
    say(session, later, "ring", ADA, minute=2, expert="ada")
    assert double_readings(session, newest=1) == []
    assert double_readings(session, newest=2) == double_readings(session)
    assert len(double_readings(session)) == 2
