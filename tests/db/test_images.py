"""Images: stored once, split, pooled and frozen."""

from __future__ import annotations

from typing import Any

import pytest

from db import images
from db.errors import AlreadyFrozen, NotFound
from db.models import Split
from db.session import Database
from tests.builders import NOBODY, add_image, add_review, sha256


def test_an_image_is_stored_once_by_its_sha256(database: Database) -> None:
    row: dict[str, Any] = {"file": "images/x.png", "width": 10, "height": 20, "group": "slide 1", "dataset": "coco"}
    with database.session() as session:
        first, created = images.add_image(session, sha256=sha256(1), name="a.png", split="train", **row)
        again, created_again = images.add_image(session, sha256=sha256(1), name="b.png", split="test", **row)
        assert (created, created_again) == (True, False)
        assert (again.id, again.name, again.split.value) == (first.id, "a.png", "train")
        assert images.by_sha256(session, sha256(1)) is first
        assert images.by_sha256(session, sha256(2)) is None
        assert images.by_file(session, "images/x.png") is first
        assert images.get(session, first.id) is first


def test_an_unknown_image_is_named(database: Database) -> None:
    with database.session() as session, pytest.raises(NotFound, match=str(NOBODY)):
        images.get(session, NOBODY)


def test_images_by_id_leave_unknown_ones_out(database: Database) -> None:
    with database.session() as session:
        image = add_image(session)
        assert images.by_ids(session, range(2500)) == {image.id: image}


def test_the_pool_is_train_without_a_live_review(database: Database) -> None:
    with database.session() as session:
        names = ("untouched", "submitted", "skipped", "withdrawn", "imported", "second reader")
        rows = {name: add_image(session, name) for name in names}
        add_image(session, "validation", split="validation")
        add_image(session, "test", split="test")
        add_review(session, rows["submitted"], "ls:1:1")
        add_review(session, rows["skipped"], "ls:1:2", status="skipped")
        add_review(session, rows["withdrawn"], "ls:1:3")
        add_review(session, rows["withdrawn"], "ls:1:3", status="withdrawn")
        add_review(session, rows["imported"], "import:x", expert="import")
        add_review(session, rows["second reader"], "ls:1:4", status="withdrawn")
        add_review(session, rows["second reader"], "ls:1:5")
        assert [image.name for image in images.pool(session)] == ["untouched", "withdrawn"]
        assert images.counts(session) == {"train": 6, "validation": 1, "test": 1, "pool": 2}
        assert [image.name for image in images.by_split(session, "test")] == ["test"]


def test_counts_of_an_empty_record_are_zero(database: Database) -> None:
    with database.session() as session:
        assert images.counts(session) == {"train": 0, "validation": 0, "test": 0, "pool": 0}


def test_a_split_is_frozen_once(database: Database) -> None:
    with database.session() as session:
        assert images.frozen_split(session, "test") is None
        first = images.freeze_split(session, "test", {"images": [1]}, sha256("ruler"))
        assert images.freeze_split(session, "test", {"images": [1]}, sha256("ruler")).id == first.id
        with pytest.raises(AlreadyFrozen, match="ruler cannot change"):
            images.freeze_split(session, "test", {"images": [1, 2]}, sha256("longer ruler"))
    with database.session() as session:
        frozen = images.frozen_split(session, "test")
        assert frozen is not None
        assert frozen.content == {"images": [1]}


def test_imports_keep_their_reports(database: Database) -> None:
    with database.session() as session:
        images.add_import(session, source="smears.zip", dataset="bbbc041", report={"missing": ["ä.png"]})
    with database.session() as session:
        assert [row.report for row in images.imports(session)] == [{"missing": ["ä.png"]}]


def test_images_come_in_pages(database: Database) -> None:
    with database.session() as session:
        made = [
            add_image(session, name, split=split)
            for name, split in (("a_1", "test"), ("ab1", "train"), ("a_2", "train"))
        ]
        assert images.some(session, most=2) == made[:2]
        assert images.some(session, made[1].id) == made[2:]
        assert images.some(session, split=Split.train) == made[1:]
        assert images.some(session, beginning="a_") == [made[0], made[2]], "an underscore is one"


def test_an_image_that_is_gone_is_not_held(database: Database) -> None:
    with database.session() as session, pytest.raises(NotFound, match="found none: it was forgotten meanwhile"):
        images.lock(session, NOBODY)
