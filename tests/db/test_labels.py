"""The current label: histories written out by hand, with the answer beside them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from backend.instances import DIFFICULT, INFECTED
from db import labels
from db.labels import current_labels, thread_labels
from db.models import Action, Cell
from db.session import Database
from tests.builders import add_cell, add_image, add_review, at, say

ADA, BOB = "ls:1:1", "ls:1:2"


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    with database.session() as session:
        yield session


@pytest.fixture
def cell(session: Session) -> Cell:
    return add_cell(session, add_image(session))


def answers(session: Session, **question: object) -> dict[int, str | None]:
    """Cell id -> current label."""
    return {live.cell_id: live.label for live in current_labels(session, **question)}  # type: ignore[arg-type]


def test_nobody_has_said_anything(session: Session, cell: Cell) -> None:
    assert current_labels(session) == []
    assert labels.newest_revision_id(session) == 0


def test_the_last_answer_of_a_thread_counts(session: Session, cell: Cell) -> None:
    say(session, cell, "ring", ADA, minute=0)
    say(session, cell, "trophozoite", ADA, minute=1)
    assert answers(session) == {cell.id: "trophozoite"}


def test_a_live_label_tells_everything_about_its_answer(session: Session, cell: Cell) -> None:
    say(session, cell, "ring", ADA, minute=0, box=(1, 2, 30, 40))
    newest = say(session, cell, "ring", ADA, minute=5, action="moved", box=(1.5, 2, 30, 40), expert="bob")
    assert current_labels(session) == [
        labels.LiveLabel(
            cell_id=cell.id,
            key=cell.key,
            image_id=cell.image_id,
            label="ring",
            box=(1.5, 2.0, 30.0, 40.0),
            mask=None,
            shape="rectangle",
            action=Action.moved,
            expert="bob",
            decided_at=at(5),
            revision_id=newest,
            thread=ADA,
        )
    ]


def test_within_a_thread_recording_order_beats_the_clock(session: Session, cell: Cell) -> None:
    """An annotation's states arrive in order; a clock that was set back does not bring an old one back."""
    say(session, cell, "ring", ADA, minute=10)
    say(session, cell, "schizont", ADA, minute=3)
    assert answers(session) == {cell.id: "schizont"}


def test_deleted_is_an_answer_too(session: Session, cell: Cell) -> None:
    say(session, cell, "ring", ADA, minute=0)
    say(session, cell, None, ADA, minute=1)
    (live,) = current_labels(session)
    assert (live.label, live.box, live.action) == (None, None, Action.deleted)


def test_the_newest_thread_counts(session: Session, cell: Cell) -> None:
    say(session, cell, "schizont", BOB, minute=7)
    say(session, cell, "ring", ADA, minute=2)  # heard of later, decided earlier
    assert answers(session) == {cell.id: "schizont"}


def test_a_tie_between_threads_goes_to_the_later_record(session: Session, cell: Cell) -> None:
    say(session, cell, "schizont", BOB, minute=4)
    say(session, cell, "ring", ADA, minute=4)
    assert answers(session) == {cell.id: "ring"}


def test_withdrawing_the_only_thread_leaves_no_answer(session: Session, cell: Cell) -> None:
    say(session, cell, "ring", ADA, minute=0)
    say(session, cell, None, ADA, minute=1, action="withdrawn")
    assert current_labels(session) == []


def test_withdrawing_brings_the_other_thread_back(session: Session, cell: Cell) -> None:
    say(session, cell, "red blood cell", "import:abc", minute=0, action="imported")
    say(session, cell, "ring", ADA, minute=1)
    assert answers(session) == {cell.id: "ring"}
    say(session, cell, None, ADA, minute=2, action="withdrawn")
    assert answers(session) == {cell.id: "red blood cell"}


def test_a_withdrawn_thread_may_speak_again(session: Session, cell: Cell) -> None:
    say(session, cell, "ring", ADA, minute=0)
    say(session, cell, None, ADA, minute=1, action="withdrawn")
    say(session, cell, "gametocyte", ADA, minute=2)
    assert answers(session) == {cell.id: "gametocyte"}


def test_as_of_is_what_experts_had_decided_by_then(session: Session, cell: Cell) -> None:
    say(session, cell, "red blood cell", "import:abc", minute=0, action="imported")
    say(session, cell, "ring", ADA, minute=10)
    say(session, cell, None, BOB, minute=20)
    say(session, cell, None, BOB, minute=30, action="withdrawn")
    history = {minute: answers(session, as_of=at(minute)).get(cell.id, "nothing") for minute in (-1, 0, 9, 10, 20, 30)}
    assert history == {-1: "nothing", 0: "red blood cell", 9: "red blood cell", 10: "ring", 20: None, 30: "ring"}


def test_newest_revision_id_is_what_was_recorded_by_then(session: Session, cell: Cell) -> None:
    first = say(session, cell, "ring", ADA, minute=50)
    say(session, cell, "schizont", BOB, minute=60)
    assert answers(session, newest_revision_id=first) == {cell.id: "ring"}
    assert answers(session, newest_revision_id=first - 1) == {}


def test_images_may_be_chosen(session: Session) -> None:
    cells = [add_cell(session, add_image(session)) for _ in range(3)]
    for cell in cells:
        say(session, cell, "ring", f"ls:1:{cell.id}")
    assert answers(session, image_ids=[cells[2].image_id, cells[0].image_id]) == {
        cells[0].id: "ring",
        cells[2].id: "ring",
    }
    assert answers(session, image_ids=[]) == {}
    assert len(answers(session, image_ids=range(1, 2500))) == 3  # more than one query's worth


def test_thread_labels_is_one_annotation_whatever_others_say(session: Session, cell: Cell) -> None:
    other = add_cell(session, add_image(session))
    say(session, cell, "ring", ADA, minute=0)
    say(session, other, None, ADA, minute=1)
    say(session, cell, "schizont", BOB, minute=2)
    assert {live.cell_id: live.label for live in thread_labels(session, ADA)} == {cell.id: "ring", other.id: None}
    say(session, other, None, ADA, minute=3, action="withdrawn")
    assert [live.cell_id for live in thread_labels(session, ADA)] == [cell.id]
    assert thread_labels(session, "ls:9:9") == []


def test_history_keeps_everything(session: Session, cell: Cell) -> None:
    say(session, cell, "ring", ADA)
    say(session, cell, None, ADA, action="withdrawn")
    assert [row.action.value for row in labels.history(session, cell.id)] == ["relabelled", "withdrawn"]


def test_new_infected_cells_are_those_experts_decided_since(session: Session) -> None:
    image = add_image(session)
    rest = {name: add_cell(session, image, name) for name in "abcdefg"}
    say(session, rest["a"], "ring", "ls:1:1")
    before = labels.newest_revision_id(session)
    say(session, rest["b"], "ring", "ls:1:2")
    say(session, rest["c"], "ring", "import:x", action="imported")  # no expert
    say(session, rest["d"], "red blood cell", "ls:1:4")  # not infected
    say(session, rest["e"], "difficult", "ls:1:5")
    say(session, rest["f"], "ring", "ls:1:6")
    say(session, rest["f"], None, "ls:1:6", minute=1)  # taken back
    say(session, rest["g"], "ring", "ls:1:7")
    say(session, rest["g"], "schizont", "ls:1:8", minute=1)  # counts once, as what it is now
    ruler = add_cell(session, add_image(session, split="test"))
    say(session, ruler, "ring", "ls:1:9")  # never trained on
    none = {"difficult": 0, "gametocyte": 0, "ring": 0, "schizont": 0, "trophozoite": 0}
    assert labels.new_infected_since(session, before) == {**none, "ring": 1, "difficult": 1, "schizont": 1}
    assert labels.new_infected_since(session, 0)["ring"] == 2
    assert labels.new_infected_since(session, labels.newest_revision_id(session)) == none


def test_retraining_labels_are_the_infected_stages_and_difficult() -> None:
    assert {*INFECTED, DIFFICULT} == labels.RETRAINING_LABELS


def test_labelled_images_have_a_live_submission(session: Session) -> None:
    imported, skipped, withdrawn, test = (
        add_image(session, name, split="test" if name == "test" else "train")
        for name in ("imported", "skipped", "withdrawn", "test")
    )
    add_image(session, "untouched")
    add_review(session, imported, "import:1")
    add_review(session, skipped, "ls:1:2", status="skipped")
    add_review(session, withdrawn, "ls:1:3")
    add_review(session, withdrawn, "ls:1:3", status="withdrawn")
    add_review(session, test, "ls:1:4")
    assert [image.name for image in labels.labelled_images(session)] == ["imported", "test"]
    assert [image.name for image in labels.labelled_images(session, "train")] == ["imported"]
    add_review(session, skipped, "ls:2:6", way="cell")  # of one cell
    assert [image.name for image in labels.labelled_images(session, "train")] == ["imported"]
    add_review(session, withdrawn, "ls:1:5")  # somebody else's
    assert [image.name for image in labels.labelled_images(session, "train")] == ["imported", "withdrawn"]


def test_class_counts_count_current_labels(session: Session, cell: Cell) -> None:
    say(session, cell, "ring", ADA)
    say(session, cell, "schizont", ADA, minute=1)
    say(session, add_cell(session, add_image(session)), None, "ls:1:3")
    ruler = add_cell(session, add_image(session, split="test"))
    say(session, ruler, "ring", "ls:1:4")
    assert labels.class_counts(session) == {"ring": 1, "schizont": 1}
    assert labels.class_counts(session, "test") == {"ring": 1}


@pytest.mark.parametrize(("action", "label"), [("deleted", "ring"), ("withdrawn", "ring"), ("accepted", None)])
def test_an_answer_has_a_label_unless_it_takes_one_away(
    session: Session, cell: Cell, action: str, label: str | None
) -> None:
    with pytest.raises(IntegrityError):
        say(session, cell, label, action=action)


def test_a_review_answers_a_cell_once(session: Session, cell: Cell) -> None:
    review = add_review(session, add_image(session))
    rows = [labels.revision(review, cell.id, Action.added, "ring") for _ in range(2)]
    with pytest.raises(IntegrityError):
        labels.add_revisions(session, rows)
