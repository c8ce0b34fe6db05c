"""After a patient was forgotten: the gate goes on, the images stay out, and no id is used twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from sqlalchemy import update

from al_loop.evaluate import evaluate_candidate
from al_loop.forget import forget
from al_loop.import_images import import_images
from al_loop.import_report import ImportReport
from al_loop.ruler import freeze_ruler, load_ruler
from backend.errors import NotEnoughData
from db import evaluations, versions
from db.labels import newest_revision_id
from db.models import Image
from db.session import Database
from tests import builders
from tests.al_loop.deciding import decide
from tests.al_loop.patients import ONE, OTHER, add_patient
from tests.al_loop.sources import write_bbbc041, write_image
from tests.al_loop.test_evaluate import add_labelled_smear, contest
from tests.al_loop.workshop import Workshop, open_workshop
from tests.backend.smears import DiscDetector


@pytest.fixture
def workshop(tmp_path: Path, sqlite_database: Database) -> Workshop:
    return open_workshop(tmp_path, sqlite_database)


def set_patient(database: Database, patient: str, image_ids: Sequence[int]) -> None:
    """Somebody says who these images are of."""
    with database.session() as session:
        session.execute(update(Image).where(Image.id.in_(image_ids)).values(patient=patient))


def test_the_gate_measures_on_what_is_left_of_the_ruler(workshop: Workshop) -> None:
    fields = [add_labelled_smear(workshop, seed, "test") for seed in range(3)]
    set_patient(workshop.database, ONE, [fields[0].id])
    with workshop.database.session() as session:
        assert freeze_ruler(session)
        whole = load_ruler(session)
    bench, incumbent, candidate = contest(workshop, DiscDetector("infected"))
    assert forget(workshop, ONE, "asked to").finished
    with workshop.database.session(read_only=True) as session:
        ruler = load_ruler(session)
    assert ruler.images == whole.images[1:]
    assert ruler.sha256 != whole.sha256
    evaluation = evaluate_candidate(workshop, candidate, bench=bench)
    assert decide(workshop, candidate, evaluation).promote
    with workshop.database.session(read_only=True) as session:
        assert [row.replaced_id for row in versions.decisions(session, candidate)] == [incumbent]
        assert evaluations.get_evaluation(session, evaluation or 0).split_sha256 == ruler.sha256
    set_patient(workshop.database, OTHER, [field.id for field in fields[1:]])
    forget(workshop, OTHER, "asked to")
    with workshop.database.session(read_only=True) as session, pytest.raises(NotEnoughData, match="all of them were f"):
        load_ruler(session)


def test_a_forgotten_image_is_not_imported_again(workshop: Workshop, tmp_path: Path) -> None:
    source = write_bbbc041(tmp_path / "set", 4)

    def bring() -> ImportReport:
        pattern = r"(?P<patient>\d+)"
        return import_images(workshop.database, workshop.store, source, name_pattern=pattern, on_progress=go_on)

    def forget_one(done: int, total: int, what: str) -> None:
        """Meanwhile somebody else imports the same images, and one of the patients is forgotten."""
        nonlocal go_on
        if done == total and what.startswith("reading"):
            go_on = None
            bring()
            assert forget(workshop, "0001", "asked to").finished

    go_on: Callable[[int, int, str], None] | None = forget_one
    assert bring().problems == {"forgotten image": 1}
    again = bring()
    assert (again.problems, again.already_there, again.added) == ({"forgotten image": 1}, 3, {})
    assert again.examples == {"forgotten image": ["forgetting 1"]}  # neither its name nor its patient's
    assert len([path for path in workshop.store.path("images").rglob("*.png")]) == 3
    write_image(source / "images" / "0001.png", 99)
    assert bring().examples == {"forgotten patient": ["0001"]}  # the same person with another image


def test_no_new_row_takes_the_place_of_one_that_is_gone(tmp_path: Path, database: Database) -> None:
    workshop = open_workshop(tmp_path, database)
    add_patient(workshop, OTHER, images=1)
    gone = add_patient(workshop)
    with database.session() as session:
        newest = newest_revision_id(session)
    forget(workshop, ONE, "asked to")
    with database.session() as session:
        image = builders.add_image(session)
        assert image.id > max(gone)
        assert builders.say(session, builders.add_cell(session, image), "ring") > newest
