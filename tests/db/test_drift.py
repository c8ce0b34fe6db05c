"""Fields before and since a moment, their stains, and checks."""

from __future__ import annotations

from datetime import timedelta

from db import drift, versions
from db.models import now
from db.session import Database
from tests.builders import add_active_pair, add_image, add_prediction, add_version, at, dated

COLOURS = (0.1, 0.2, 0.3, 0.01, 0.02, 0.03)


def test_fields_are_parted_by_when_they_came(database: Database) -> None:
    with database.session() as session:
        pair = add_active_pair(session)
        images = []
        for minute in (0, 10, 20):
            with dated(session, at(minute)):
                images.append(add_image(session))
            add_prediction(session, images[-1], pair)
        add_image(session)  # not predicted
        before = drift.seen_fields(session, pair.id, at(10), since=False, limit=9)
        since = drift.seen_fields(session, pair.id, at(10), since=True, limit=9)
        assert [field.image_id for field in before] == [images[0].id]
        assert [(field.image_id, field.group, field.count) for field in since] == [
            (images[2].id, images[2].group, 1),
            (images[1].id, images[1].group, 1),
        ]
        assert [field.image_id for field in drift.seen_fields(session, pair.id, at(0), since=True, limit=1)] == [
            images[2].id
        ]
        assert drift.images_known(session) == images[2].id + 1


def test_a_pair_is_accepted_when_its_younger_version_begins_to_serve(database: Database) -> None:
    with database.session() as session:
        pair = add_active_pair(session)
        newer = add_version(session)
        with dated(session, now() + timedelta(days=1)):
            moment = versions.activate(session, newer.id, kind="gate", reasons=[]).decided_at
        assert drift.accepted_at(session, (pair.all_cells_id, newer.id)) == moment
        assert drift.accepted_at(session, (pair.all_cells_id, pair.infected_id)) < moment
        assert drift.accepted_at(session, (add_version(session).id,)) is None


def test_a_stain_is_kept_once(database: Database) -> None:
    with database.session() as session:
        image = add_image(session)
        for values in (COLOURS, [0.9] * 6):
            drift.add_stain(session, image.id, values)
        assert drift.stains(session, [image.id, image.id + 1]) == {image.id: COLOURS}


def test_the_newest_check_of_a_pair_counts(database: Database) -> None:
    with database.session() as session:
        pair = add_active_pair(session)
        assert drift.newest_check(session, pair.id) is None
        for drifted in (True, False):
            drift.add_check(session, pair.id, drifted=drifted, reasons=[str(drifted)], numbers={"newest": 1})
        check = drift.newest_check(session, pair.id)
        assert check is not None
        assert (check.drifted, check.reasons) == (False, ["False"])
