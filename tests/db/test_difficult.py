"""Difficult cells: what several readers said, written out by hand, with the state beside it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy.orm import Session

from backend.instances import DIFFICULT as WORD
from db.difficult import DIFFICULT, Doubt, difficult_cells
from db.reviews import IMPORT_EXPERT
from db.session import Database
from tests.builders import add_cell, add_image, at, say

ADA, BOB, EVE = "ada@example.org", "bob@example.org", "eve@example.org"
# (expert, way of saying it, label), a minute apart
HISTORIES = {
    "one reader": ([(ADA, "f", DIFFICULT)], Doubt.open, DIFFICULT, (ADA,), 0),
    "one reader, twice": ([(ADA, "f", DIFFICULT), (ADA, "c", DIFFICULT)], Doubt.open, DIFFICULT, (ADA,), 1),
    "two readers": ([(ADA, "f", DIFFICULT), (BOB, "c", DIFFICULT)], Doubt.confirmed, DIFFICULT, (ADA, BOB), 1),
    "three": (
        [(ADA, "f", DIFFICULT), (BOB, "f", DIFFICULT), (EVE, "f", DIFFICULT)],
        *(Doubt.confirmed, DIFFICULT, (ADA, BOB, EVE), 1),
    ),
    "another decides": ([(ADA, "f", DIFFICULT), (BOB, "c", "ring")], Doubt.resolved, "ring", (ADA, BOB), 1),
    "a third overrules two": (
        [(ADA, "f", DIFFICULT), (BOB, "f", DIFFICULT), (EVE, "f", "ring")],
        *(Doubt.resolved, "ring", (ADA, BOB, EVE), 2),
    ),
    "no cell at all": ([(ADA, "f", DIFFICULT), (BOB, "c", None)], Doubt.resolved, None, (ADA, BOB), 1),
    "changed their mind": ([(ADA, "f", DIFFICULT), (ADA, "f", "ring")], Doubt.resolved, "ring", (ADA,), 1),
    "read before the doubt": ([(BOB, "f", "ring"), (ADA, "f", DIFFICULT)], Doubt.open, DIFFICULT, (BOB, ADA), 1),
    "doubts again": (
        [(ADA, "f", DIFFICULT), (BOB, "f", "ring"), (ADA, "f", DIFFICULT)],
        *(Doubt.open, DIFFICULT, (BOB, ADA), 2),
    ),
    "taken back": (
        [(BOB, "f", "ring"), (ADA, "f", DIFFICULT), (ADA, "f", "withdrawn")],
        *(Doubt.resolved, "ring", (BOB,), 0),
    ),
    "in the data set": ([(IMPORT_EXPERT, "f", DIFFICULT)], Doubt.open, DIFFICULT, (), 0),
    "in the data set, and to a reader": (
        [(IMPORT_EXPERT, "f", DIFFICULT), (ADA, "c", DIFFICULT)],
        *(Doubt.confirmed, DIFFICULT, (ADA,), 1),
    ),
}


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    with database.session() as session:
        yield session


def test_difficult_is_the_word_experts_use() -> None:
    assert DIFFICULT == WORD


def test_a_cell_stands_where_its_readers_leave_it(session: Session) -> None:
    cells = {}
    for name, (said, *_) in HISTORIES.items():
        cell = cells[name] = add_cell(session, add_image(session, name))
        for minute, (expert, way, label) in enumerate(said):
            thread, gone = f"{way}:{expert}:{cell.id}", label == "withdrawn"
            say(session, cell, None if gone else label, thread, minute, "withdrawn" if gone else None, expert=expert)
    found = {cell.image: (cell.state, cell.label, cell.readers, cell.since) for cell in difficult_cells(session)}
    assert found == {name: (*expected, at(minute)) for name, (_, *expected, minute) in HISTORIES.items()}
    assert {cell.cell_id for cell in difficult_cells(session)} == {cell.id for cell in cells.values()}


def test_those_that_wait_longest_come_first_and_the_ruler_never(session: Session) -> None:
    late, early, decided, never, gone = (add_cell(session, add_image(session)) for _ in range(5))
    ruler = add_cell(session, add_image(session, split="test"))
    say(session, late, DIFFICULT, "ls:1:1", minute=9)
    say(session, early, DIFFICULT, "ls:1:2", minute=3)
    say(session, decided, DIFFICULT, "ls:1:3")
    say(session, decided, "ring", "ls:1:3", minute=1)
    say(session, never, "ring", "ls:1:4")
    say(session, gone, DIFFICULT, "ls:1:5")
    say(session, gone, None, "ls:1:5", action="withdrawn")
    say(session, ruler, DIFFICULT, "ls:1:6")
    assert [cell.cell_id for cell in difficult_cells(session)] == [early.id, late.id, decided.id]
    assert [cell.cell_id for cell in difficult_cells(session, Doubt.open)] == [early.id, late.id]
    assert difficult_cells(session, Doubt.confirmed) == []
    assert [cell.cell_id for cell in difficult_cells(session, Doubt.open, split=None)] == [ruler.id, early.id, late.id]
