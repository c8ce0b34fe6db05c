"""The pool as the active pair sees it: complete, whatever single images do, and cheap when nothing is missing."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from al_loop.preannotate_pool import preannotate_images, preannotate_pool
from backend.errors import FileStoreUnavailable, NoTrainedModel, StoredFileCorrupt
from backend.far_store import open_store
from backend.fuse import FusionConfig
from backend.preannotate import Pair
from backend.serving import PairCache, Served
from db import images, predictions
from db.models import Image
from db.session import Database
from tests import builders
from tests.al_loop.workshop import Workshop, open_workshop
from tests.backend.smears import HEIGHT, WIDTH, DiscDetector, png


@pytest.fixture
def workshop(tmp_path: Path, sqlite_database: Database) -> Workshop:
    return open_workshop(tmp_path, sqlite_database)


def add_smears(workshop: Workshop, count: int) -> list[Image]:
    """Stored train images of two discs each."""
    found = []
    with workshop.database.session() as session:
        for seed in range(count):
            stored = workshop.store.put_bytes("images", png(seed), ".png")
            size = {"width": WIDTH, "height": HEIGHT}
            found.append(builders.add_image(session, f"{seed}.png", sha256=stored.sha256, file=stored.file, **size))
    return found


def served(workshop: Workshop) -> Served:
    """The active pair as two detectors that find discs."""

    def load(row: object) -> Pair:
        return Pair("discs", DiscDetector("all_cells"), DiscDetector("infected"), FusionConfig())  # type: ignore[arg-type]

    return PairCache(workshop.database, workshop.store, "cpu", load).current()


def test_an_unreadable_image_does_not_spoil_the_others(workshop: Workshop, caplog: pytest.LogCaptureFixture) -> None:
    with workshop.database.session() as session:
        pair = builders.add_active_pair(session)
    smears = add_smears(workshop, 4)
    workshop.store.path(smears[1].file).write_bytes(b"no image")
    workshop.store.path(smears[2].file).unlink()
    with workshop.database.session() as session:
        for image in smears:
            predictions.request(session, image.id)
    seen: list[tuple[int, int]] = []
    with caplog.at_level(logging.WARNING):
        done = preannotate_images(workshop, served(workshop), smears, lambda *state: seen.append(state))
    assert done == 2
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [record.getMessage()[:11] for record in caplog.records] == ["image 1.png", "image 2.png"]
    with workshop.database.session(read_only=True) as session:
        assert set(predictions.by_pair(session, pair.id)) == {smears[0].id, smears[3].id}
        assert [image.id for image in predictions.missing(session, pair.id)] == [smears[1].id, smears[2].id]
        assert predictions.requests(session) == [], "nobody waits for an image that cannot be read"
        [first, _] = predictions.predicted_cells(session, predictions.by_pair(session, pair.id)[smears[0].id].id)
    assert (first[0].label, first[0].source) == ("ring", "both")


def test_files_that_are_away_for_a_while_are_waited_for(workshop: Workshop, tmp_path: Path) -> None:
    with workshop.database.session() as session:
        pair = builders.add_active_pair(session)
    share = tmp_path / "share"
    share.mkdir()
    add_smears(replace(workshop, store=open_store(tmp_path / "one machine", f"file://{share}")), 1)
    here = replace(workshop, store=open_store(tmp_path / "another", f"file://{share}"))
    with workshop.database.session() as session:
        (smear,) = predictions.missing(session, pair.id)
        predictions.request(session, smear.id)
    share.rename(tmp_path / "unmounted")
    with pytest.raises(FileStoreUnavailable, match="make it, or mount it"):
        preannotate_images(here, served(here), [smear], lambda done, total: None)
    with workshop.database.session(read_only=True) as session:
        assert [image.id for image in predictions.requests(session)] == [smear.id], "somebody still waits"
    (tmp_path / "unmounted").rename(share)
    assert preannotate_images(here, served(here), [smear], lambda done, total: None) == 1


def test_predicting_again_adds_nothing(workshop: Workshop) -> None:
    with workshop.database.session() as session:
        pair = builders.add_active_pair(session)
    smears = add_smears(workshop, 2)
    for _ in range(2):
        assert preannotate_images(workshop, served(workshop), smears, lambda done, total: None) == 2
    with workshop.database.session(read_only=True) as session:
        assert len(predictions.by_pair(session, pair.id)) == 2


def test_without_models_it_says_what_to_do(workshop: Workshop) -> None:
    with pytest.raises(NoTrainedModel, match="cellloop train"):
        preannotate_pool(workshop)


def test_models_are_loaded_only_when_something_is_missing(workshop: Workshop) -> None:
    """The pair's weights were never written: loading them would fail."""
    with workshop.database.session() as session:
        builders.add_active_pair(session)
    smears = add_smears(workshop, 2)
    preannotate_images(workshop, served(workshop), smears, lambda done, total: None)
    assert preannotate_pool(workshop) == 0
    with workshop.database.session() as session:
        builders.add_image(session, split="test")  # never predicted for the queue
    assert preannotate_pool(workshop) == 0
    with workshop.database.session() as session:
        late = builders.add_image(session)
        assert images.get(session, late.id).split == "train"
    with pytest.raises(StoredFileCorrupt):
        preannotate_pool(workshop)


def test_an_image_that_was_forgotten_meanwhile_does_not_spoil_the_others(workshop: Workshop) -> None:
    with workshop.database.session() as session:
        builders.add_active_pair(session)
    first, second = add_smears(workshop, 2)
    gone = Image(id=builders.NOBODY, sha256=second.sha256, file=second.file, name="gone.png")
    assert preannotate_images(workshop, served(workshop), [gone, first], lambda done, total: None) == 1
