"""Current labels, counts and labels as of any moment against the simplest thing that can be right: a replay in plain
Python. Histories have edits, deletions, withdrawals and answers that arrive late."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select
from sqlalchemy.orm import Session

from db.labels import class_counts, current_labels, thread_labels
from db.models import Cell, CurrentLabel
from db.session import Database
from db.views_cells import LABELS_AS_OF
from tests.builders import add_cell, add_image, at, say

LABELS = ("ring", "schizont", "red blood cell", "difficult")
Event = tuple[int, int, str, str, int]  # cell, thread, action, label, minute

events = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.integers(0, 2),
        st.sampled_from(("accepted", "relabelled", "added", "deleted", "withdrawn")),
        st.sampled_from(LABELS),
        st.integers(0, 5),
    ),
    max_size=14,
)
moments = st.none() | st.integers(-1, 5)


def replay(history: Sequence[Event], until: int | None) -> dict[int, str | None]:
    """Cell -> label: remember each thread's last word about a cell, then take the newest of them."""
    last: dict[tuple[int, int], tuple[int, int, str, str]] = {}
    for number, (cell, thread, action, label, minute) in enumerate(history):
        if until is None or minute <= until:
            last[cell, thread] = (minute, number, action, label)
    current: dict[int, tuple[int, int, str | None]] = {}
    for (cell, _), (minute, number, action, label) in last.items():
        if action == "withdrawn":
            continue
        said = (minute, number, None if action == "deleted" else label)
        if cell not in current or said[:2] > current[cell][:2]:
            current[cell] = said
    return {cell: label for cell, (_, _, label) in current.items()}


def check(session: Session, history: Sequence[Event], until: int | None) -> None:
    cells: list[Cell] = [add_cell(session, add_image(session, f"cell {number}")) for number in range(3)]
    for cell, thread, action, label, minute in history:
        answer = None if action in ("deleted", "withdrawn") else label
        say(session, cells[cell], answer, f"ls:1:{thread}", minute, action)
    numbers = {cell.id: number for number, cell in enumerate(cells)}
    moment = None if until is None else at(until)
    found = {numbers[live.cell_id]: live.label for live in current_labels(session, as_of=moment)}
    assert found == replay(history, until)
    chosen = current_labels(session, [cells[1].image_id], as_of=moment)
    assert {numbers[live.cell_id]: live.label for live in chosen} == {
        number: label for number, label in replay(history, until).items() if number == 1
    }
    counts = Counter(label for label in replay(history, None).values() if label is not None)
    assert class_counts(session) == counts
    kept = session.execute(select(CurrentLabel.cell_id, CurrentLabel.label)).all()
    assert {numbers[cell_id]: label for cell_id, label in kept} == replay(history, None)
    for minute in range(-1, 6):
        spans = LABELS_AS_OF.table.c
        valid = (spans.valid_from <= at(minute)) & ((spans.valid_to > at(minute)) | spans.valid_to.is_(None))
        then = session.execute(select(spans.cell_id, spans.label).where(valid)).all()
        assert {numbers[cell_id]: label for cell_id, label in then} == replay(history, minute)
        assert len(then) == len(replay(history, minute))
    for thread in range(3):
        own = [event for event in history if event[1] == thread]
        said = {numbers[live.cell_id]: live.label for live in thread_labels(session, f"ls:1:{thread}")}
        assert said == replay(own, None)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=events, until=moments)
def test_current_labels_agree_with_a_replay(database: Database, history: list[Event], until: int | None) -> None:
    with Session(database.engine) as session:  # never committed: every history starts from nothing
        check(session, history, until)


def test_the_replay_itself_answers_known_histories() -> None:
    history: list[Event] = [(0, 0, "added", "ring", 1), (0, 1, "deleted", "ring", 2), (0, 1, "withdrawn", "ring", 3)]
    assert [replay(history, minute) for minute in (0, 1, 2, 3)] == [{}, {0: "ring"}, {0: None}, {0: "ring"}]
