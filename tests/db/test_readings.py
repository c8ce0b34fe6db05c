"""Who has read a cell: experts with a live answer, whichever way they review."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy.orm import Session

from db import readings
from db.labels import current_labels
from db.models import Cell
from db.reviews import IMPORT_EXPERT
from db.session import Database
from tests.builders import NOBODY, add_cell, add_image, at, say

ADA, BOB, EVE = "ada@example.org", "bob@example.org", "eve@example.org"


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    with database.session() as session:
        yield session


@pytest.fixture
def cell(session: Session) -> Cell:
    return add_cell(session, add_image(session))


def test_readers_are_experts_with_a_live_answer_oldest_first(session: Session, cell: Cell) -> None:
    say(session, cell, "ring", "import:x", expert=IMPORT_EXPERT, action="imported")
    say(session, cell, "ring", "ls:1:2", minute=5, expert=BOB)
    say(session, cell, None, "ls:1:1", minute=3, expert=ADA)
    say(session, cell, "difficult", "ls:2:9", minute=9, expert=BOB)  # again, in the other project
    say(session, cell, "ring", "ls:1:3", minute=1, expert=EVE)
    say(session, cell, None, "ls:1:3", minute=7, expert=EVE, action="withdrawn")
    unread = add_cell(session, add_image(session))
    say(session, unread, "ring", "import:y", expert=IMPORT_EXPERT, action="imported")
    assert readings.readers_of(session, [cell.id, unread.id, NOBODY]) == {cell.id: [ADA, BOB]}
    assert readings.readers_of(session, []) == {}
    assert readings.readers_of(session, range(cell.id, cell.id + 2000))[cell.id] == [ADA, BOB]


def test_the_last_live_reading_is_the_current_label(session: Session) -> None:
    cells = [add_cell(session, add_image(session)) for _ in range(4)]
    for number, cell in enumerate(cells):
        say(session, cell, "ring", f"ls:1:{number}", minute=number)
        say(session, cell, "schizont", f"ls:2:{number}", minute=2, expert=BOB)
        if number == 3:
            say(session, cell, None, f"ls:1:{number}", minute=1)
    found = readings.live_readings(session, [cell.id for cell in cells])
    assert {cell_id: (each[-1].label, each[-1].revision_id) for cell_id, each in found.items()} == {
        live.cell_id: (live.label, live.revision_id) for live in current_labels(session)
    }


def test_history_is_everything_ever_said_in_order(session: Session, cell: Cell) -> None:
    say(session, cell, "difficult", "ls:1:1", minute=4, expert=ADA)
    say(session, cell, "ring", "ls:1:2", minute=2, expert=BOB)
    say(session, cell, None, "ls:1:1", minute=6, expert=ADA, action="withdrawn")
    told = [
        (each.expert, each.action.value, each.label, each.decided_at) for each in readings.history(session, cell.id)
    ]
    assert told == [
        (ADA, "relabelled", "difficult", at(4)),
        (BOB, "relabelled", "ring", at(2)),
        (ADA, "withdrawn", None, at(6)),
    ]
    assert readings.history(session, NOBODY) == []
