"""The ruler does not bend: not when experts change labels later, not when its row is touched."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from sqlalchemy import text, update
from sqlalchemy.exc import IntegrityError

from al_loop.import_images import import_images
from al_loop.ruler import freeze_ruler, load_ruler
from backend.errors import NotEnoughData
from backend.store import FileStore
from db.images import by_split, frozen_split
from db.labels import add_revisions, current_labels, revision
from db.models import Action, FrozenSplit, ReviewStatus, now
from db.reviews import add_review
from db.session import Database
from tests.al_loop.sources import write_bbbc041


@pytest.fixture
def imported(sqlite_database: Database, tmp_path: Path) -> Database:
    import_images(sqlite_database, FileStore(tmp_path / "files"), write_bbbc041(tmp_path / "set", 12))
    return sqlite_database


def test_there_is_none_before_an_import(sqlite_database: Database) -> None:
    with sqlite_database.session() as session:
        assert freeze_ruler(session) is None
        with pytest.raises(NotEnoughData, match="import a labelled data set first"):
            load_ruler(session)


def test_later_answers_about_test_images_do_not_move_it(imported: Database) -> None:
    with imported.session() as session:
        before = load_ruler(session)
        image = by_split(session, "test")[0]
        (label,) = current_labels(session, [image.id])
        review = add_review(
            session, thread="ls:1:1", image_id=image.id, status=ReviewStatus.submitted, expert="e", revised_at=now(),
            content=[],
        )  # fmt: skip
        add_revisions(session, [revision(review, label.cell_id, Action.relabelled, "schizont", label.box)])
        assert current_labels(session, [image.id])[0].label == "schizont"
        assert freeze_ruler(session) == before.sha256
        assert load_ruler(session) == before
    assert {cell.label for image in before.images for cell in image.cells} == {"ring"}
    assert len(before.images) == 3


def test_a_changed_row_is_refused_and_noticed(imported: Database) -> None:
    with imported.session() as session:
        frozen = frozen_split(session, "test")
        assert frozen is not None
        content = copy.deepcopy(frozen.content)
        content["images"][0]["cells"][0]["label"] = "schizont"
        with pytest.raises(IntegrityError, match="frozen_splits are facts"), session.begin_nested():
            session.execute(update(FrozenSplit).values(content=content))
        session.execute(text("DROP TRIGGER guard_frozen_splits_update"))  # somebody goes to great lengths
        session.execute(update(FrozenSplit).values(content=content))
        session.expire_all()
        with pytest.raises(NotEnoughData, match="its row was changed"):
            load_ruler(session)
