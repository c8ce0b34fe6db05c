"""Rows for parasitaemia: by source, place and time, with the counts and the interval of the view."""

from __future__ import annotations

from datetime import UTC, timedelta

import pytest

from backend.history.parasitaemia import by_group
from db.models import Image
from db.parasitaemia import counted_images
from db.session import Database
from tests.builders import add_active_pair, add_cell, add_image, add_prediction, at, say


@pytest.fixture
def images(database: Database) -> list[Image]:
    """Two labelled fields of different slides, ten minutes apart; a pair saw two infected cells in the first."""
    with database.session() as session:
        pair = add_active_pair(session)
        found = []
        for number, (slide, labels) in enumerate({"a": ["ring", "red blood cell", "leukocyte"], "b": ["ring"]}.items()):
            image = add_image(session, group=slide, patient=f"patient {slide}", taken_at=at(10 * number))
            for cell, label in enumerate(labels):
                say(session, add_cell(session, image), label, f"ls:{number}:{cell}")
            found.append(image)
        add_prediction(session, found[0], pair, [(10, 10, 50, 50), (60, 10, 90, 50)], label="schizont")
        return found


def test_every_filter_and_none(database: Database, images: list[Image]) -> None:
    first, second = (image.id for image in images)
    with database.session(read_only=True) as session:

        def ids(*arguments: str | None, **filters: object) -> list[int]:
            return [row["image_id"] for row in counted_images(session, *arguments, **filters)]  # type: ignore[arg-type]

        assert ids() == [first, second]
        assert ids(slide="b") == ids(patient="patient b") == ids(image_id=second) == ids(since=at(10)) == [second]
        assert ids(until=at(10)) == ids(since=at(0), until=at(9)) == [first]
        assert ids("nobody") == ids(slide="b", patient="patient a") == []
        assert ids(None) == [first, first, second]  # and what the pair saw, whose name comes first


def test_rows_become_the_numbers_of_the_view(database: Database, images: list[Image]) -> None:
    with database.session(read_only=True) as session:
        rows = counted_images(session, None)
    first = next(row for row in rows if row["source"] == "labels")
    assert (first["cells"], first["infected"], first["rings"], first["leukocytes"]) == (2, 1, 1, 1)
    assert first["at"] == at(0)
    assert first["at"].utcoffset() == timedelta(0)
    assert first["at"].tzinfo is UTC
    found = {(group.source, group.image_id): group for group in by_group(rows, "image")}
    assert len(found) == len(rows) == 3
    for row in rows:
        group = found[row["source"], row["image_id"]]
        assert (group.percent, group.low, group.high) == pytest.approx(
            (row["parasitaemia"], row["low"], row["high"]), abs=1e-4
        )
