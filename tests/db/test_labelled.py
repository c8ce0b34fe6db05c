"""Completely or in part: what was labelled of an image, as of a label revision."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy.orm import Session

from db.labelled import Place, complete_images, partial_images, predicted_places
from db.labels import class_counts, new_infected_since, newest_revision_id
from db.models import Image, Split, Way
from db.predictions import predicted_cells
from db.session import Database
from tests.builders import BOX, add_active_pair, add_cell, add_image, add_prediction, add_review, say

OTHER_BOX = (100.0, 100.0, 140.0, 140.0)


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    with database.session() as session:
        yield session


def standing(session: Session, until: int | None = None, split: Split = Split.train) -> tuple[list[str], list[str]]:
    """Names of the completely and of the partly labelled images."""
    moment = newest_revision_id(session) if until is None else until
    found = (each(session, split, moment) for each in (complete_images, partial_images))
    complete, partial = ([image.name for image in images] for images in found)
    return complete, partial


def answer(session: Session, image: Image, label: str | None, thread: str, way: Way, minute: float = 0) -> int:
    return say(session, add_cell(session, image), label, thread, minute, way=way)


def test_a_field_is_complete_and_a_cell_is_a_part(session: Session) -> None:
    field, cell, both, skipped, taken_back, empty = (
        add_image(session, name) for name in ("field", "cell", "both", "skipped", "taken back", "empty")
    )
    add_image(session, "untouched")
    answer(session, field, "ring", "ls:1:1", Way.field)
    answer(session, cell, "ring", "ls:2:2", Way.cell)
    answer(session, both, "ring", "ls:2:3", Way.cell)
    answer(session, both, "ring", "ls:1:4", Way.field)
    add_review(session, skipped, "ls:2:5", status="skipped", way=Way.cell)
    answer(session, taken_back, "ring", "ls:2:6", Way.cell)
    add_review(session, taken_back, "ls:2:6", status="withdrawn", way=Way.cell)
    add_review(session, empty, "import:7")  # a field in which there is nothing
    answer(session, add_image(session, "ruler", split="test"), "ring", "ls:2:8", Way.cell)
    assert standing(session) == (["field", "both", "empty"], ["cell"])
    assert standing(session, split=Split.test) == ([], ["ruler"])


def test_a_skipped_or_withdrawn_field_leaves_its_cells_a_part(session: Session) -> None:
    skipped, withdrawn = add_image(session, "skipped"), add_image(session, "withdrawn")
    for number, image in enumerate((skipped, withdrawn)):
        answer(session, image, "ring", f"ls:2:{number}", Way.cell)
    add_review(session, skipped, "ls:1:8", status="skipped")
    answer(session, withdrawn, "ring", "ls:1:9", Way.field)
    add_review(session, withdrawn, "ls:1:9", status="withdrawn")
    assert standing(session) == ([], ["skipped", "withdrawn"])


def test_a_field_submitted_later_was_a_part_before(session: Session) -> None:
    image = add_image(session, "smear")
    before = answer(session, image, "ring", "ls:2:1", Way.cell)
    after = answer(session, image, "schizont", "ls:1:2", Way.field, minute=1)
    assert standing(session, before) == ([], ["smear"])
    assert standing(session, after) == (["smear"], [])


def test_places_are_those_of_the_newest_prediction_stored_by_then(session: Session) -> None:
    predicted, bare, empty = (add_image(session) for _ in range(3))
    assert predicted_places(session, [predicted.id], 0) == {}
    old = add_prediction(session, predicted, add_active_pair(session), [BOX])
    answer(session, bare, "ring", "ls:2:1", Way.cell)
    until = newest_revision_id(session)
    pair = add_active_pair(session)
    new = add_prediction(session, predicted, pair, [OTHER_BOX, BOX])
    add_prediction(session, empty, pair, [])
    images = [predicted.id, bare.id, empty.id]

    def shown(prediction_id: int) -> list[Place]:
        return [Place(c.cell_id, (c.x1, c.y1, c.x2, c.y2)) for c, _ in predicted_cells(session, prediction_id)]

    assert predicted_places(session, images, until) == {predicted.id: shown(old.id)}
    answer(session, bare, "ring", "ls:2:1", Way.cell)
    later = newest_revision_id(session)
    assert predicted_places(session, images, later) == {predicted.id: shown(new.id), empty.id: []}
    assert len(shown(new.id)) == 2


def test_cells_of_images_that_still_wait_count_for_the_next_training(session: Session) -> None:
    waiting = add_image(session)
    for number, label in enumerate(("ring", "difficult", "red blood cell")):
        answer(session, waiting, label, f"ls:2:{number}", Way.cell)
    counts = new_infected_since(session, 0)
    assert {label: n for label, n in counts.items() if n} == {"ring": 1, "difficult": 1}
    assert class_counts(session, Split.train) == {"ring": 1, "difficult": 1, "red blood cell": 1}
