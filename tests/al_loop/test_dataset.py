"""Manifests and samples: the current labels and no others, difficult cells ignored, experts' masks kept."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
import pytest
from sqlalchemy.orm import Session

from al_loop.dataset import DatasetManifest, border_strips, content_hash, samples, truth
from al_loop.formats.records import SourceObject
from al_loop.import_images import record_labels
from al_loop.render import Smear, render_smear
from al_loop.snapshot import snapshot
from backend.errors import NotEnoughData, StoredFileCorrupt
from backend.instances import CLASSES, DIFFICULT, ROLES
from backend.masks import area, box_to_rle, decode, encode
from backend.store import FileStore
from db.cells import add_cell
from db.difficult import difficult_cells
from db.images import add_image
from db.labels import add_revisions, current_labels, newest_revision_id, revision
from db.models import Action, Image, ReviewStatus, Split
from db.reviews import add_review
from db.session import Database
from tests.builders import say

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "files")


def add_smear(session: Session, store: FileStore, seed: int, split: Split = Split.train) -> tuple[Image, Smear]:
    """A rendered image of the six classes and a difficult cell, without labels."""
    smear = render_smear(seed, (200, 260), kinds=[*CLASSES, DIFFICULT], slide_seed=0)
    stored = store.put_bytes("images", cv2.imencode(".png", smear.image[..., ::-1])[1].tobytes(), ".png")
    image, created = add_image(
        session, sha256=stored.sha256, file=stored.file, name=f"{seed}.png", width=260, height=200,
        group=str(seed), split=split, dataset="rendered",
    )  # fmt: skip
    assert created
    return image, smear


def objects_of(smear: Smear, masks: bool = False) -> list[SourceObject]:
    found = [
        SourceObject(name, tuple(box.tolist()), rle if masks else None)
        for name, box, rle in zip(smear.cells.class_names(), smear.cells.boxes, smear.cells.masks, strict=True)
    ]
    return found + [SourceObject(DIFFICULT, tuple(box.tolist())) for box in smear.difficult]


def review(session: Session, image: Image, *answers: tuple[str, Action, str | None, tuple[float, ...] | None]) -> None:
    """An expert's review of some cells: (cell key, action, label, box)."""
    row = add_review(
        session, thread=f"ls:1:{image.id}", image_id=image.id, status=ReviewStatus.submitted, expert="e@x",
        revised_at=NOON, content=[],
    )  # fmt: skip
    add_revisions(
        session,
        [
            revision(row, add_cell(session, image.id, key).id, action, label, box)  # type: ignore[arg-type]
            for key, action, label, box in answers
        ],
    )


def test_each_role_gets_its_own_labels_and_difficult_is_ignored(sqlite_database: Database, store: FileStore) -> None:
    with sqlite_database.session() as session:
        image, smear = add_smear(session, store, 1)
        record_labels(session, image, objects_of(smear))
        everything, infected = snapshot(session, "all_cells"), snapshot(session, "infected")
    assert everything.class_counts() == dict.fromkeys([*CLASSES, DIFFICULT], 1)
    assert infected.class_counts() == dict.fromkeys(["trophozoite", "ring", "schizont", "gametocyte", DIFFICULT], 1)
    (sample,) = samples(infected, store)
    assert sorted(sample.labels) == ["gametocyte", "ring", "schizont", "trophozoite"]
    assert sample.boxes.dtype == sample.ignore_boxes.dtype == np.float32
    assert sample.path.read_bytes()
    np.testing.assert_array_equal(sample.ignore_boxes[:1], smear.difficult)
    assert len(sample.ignore_boxes) == 5  # and the four strips along the border
    assert len(sample.masks) == len(sample.mask_sources) == 4


def test_a_manifest_hashes_its_content_and_survives_json(sqlite_database: Database, store: FileStore) -> None:
    with sqlite_database.session() as session:
        for seed in (1, 2):
            image, smear = add_smear(session, store, seed)
            record_labels(session, image, objects_of(smear, masks=seed == 1))
        one = snapshot(session, "all_cells")
        assert snapshot(session, "all_cells") == one
    back = DatasetManifest.from_json(json.loads(json.dumps(one.to_json())))
    assert back == one
    assert content_hash(back.images[::-1]) == one.sha256
    cell = one.images[0].cells[0]
    for change in ({"label": "leukocyte" if cell.label != "leukocyte" else "ring"}, {"box": (0.0, 0.0, 9.0, 9.0)}):
        cells = (dataclasses.replace(cell, **change), *one.images[0].cells[1:])
        assert content_hash([dataclasses.replace(one.images[0], cells=cells), one.images[1]]) != one.sha256


def test_an_experts_answers_replace_the_imported_ones(sqlite_database: Database, store: FileStore) -> None:
    with sqlite_database.session() as session:
        image, smear = add_smear(session, store, 1)
        record_labels(session, image, objects_of(smear))
        before = snapshot(session, "all_cells")
        keys = {label.label: label.key for label in current_labels(session)}
        boxes = {label.label: label.box for label in current_labels(session)}
        review(
            session, image,
            (keys["ring"], Action.relabelled, "trophozoite", boxes["ring"]),
            (keys["leukocyte"], Action.deleted, None, None),
            (keys["schizont"], Action.relabelled, DIFFICULT, boxes["schizont"]),
            ("brandnew", Action.added, "gametocyte", (-4.0, 5.0, 30.0, 400.0)),
            ("sliver", Action.added, "gametocyte", (300.0, 5.0, 320.0, 20.0)),
        )  # fmt: skip
        after = snapshot(session, "all_cells")
        replayed = snapshot(session, "all_cells", before.newest_revision_id)
    assert after.class_counts() == {
        "trophozoite": 2, "gametocyte": 2, DIFFICULT: 2, "red blood cell": 1,
    }  # fmt: skip
    assert (0.0, 5.0, 30.0, 200.0) in {cell.box for cell in after.images[0].cells}
    assert replayed == before
    assert after.sha256 != before.sha256


def test_only_labelled_train_images_count_and_empty_ones_do(sqlite_database: Database, store: FileStore) -> None:
    with sqlite_database.session() as session:
        image, smear = add_smear(session, store, 1)
        record_labels(session, image, objects_of(smear))
        empty, _ = add_smear(session, store, 2)
        record_labels(session, empty, [])
        add_smear(session, store, 3)  # nobody labelled it
        test, test_smear = add_smear(session, store, 4, Split.test)
        record_labels(session, test, objects_of(test_smear))
        until = newest_revision_id(session)
        late, late_smear = add_smear(session, store, 5)
        record_labels(session, late, objects_of(late_smear))
        manifest = snapshot(session, "all_cells", until)
        later = snapshot(session, "all_cells")
    assert [(i.sha256, len(i.cells)) for i in manifest.images] == [(image.sha256, 7), (empty.sha256, 0)]
    assert [i.sha256 for i in later.images] == [image.sha256, empty.sha256, late.sha256]
    assert len(samples(manifest, store)[1].boxes) == 0


def test_nothing_to_learn_is_an_error_that_says_so(sqlite_database: Database, store: FileStore) -> None:
    with sqlite_database.session() as session:
        with pytest.raises(NotEnoughData, match="got 0 images with none"):
            snapshot(session, "infected")
        image, smear = add_smear(session, store, 1)
        record_labels(session, image, [t for t in objects_of(smear) if t.label in ("red blood cell", DIFFICULT)])
        with pytest.raises(NotEnoughData, match="infected: expected labelled train images with"):
            snapshot(session, "infected")
        assert snapshot(session, "all_cells").class_counts()["red blood cell"] == 1


def test_an_experts_mask_wins_and_others_are_derived(sqlite_database: Database, store: FileStore) -> None:
    with sqlite_database.session() as session:
        image, smear = add_smear(session, store, 1)
        objects = objects_of(smear, masks=True)
        drawn = np.zeros((200, 260), dtype=bool)
        drawn[20:30, 40:60] = True
        objects[0] = dataclasses.replace(objects[0], mask=encode(drawn))
        objects[1:] = [dataclasses.replace(thing, mask=None) for thing in objects[1:]]
        record_labels(session, image, objects)
        manifest = snapshot(session, "all_cells")
    steps: list[tuple[int, int]] = []
    (sample,) = samples(manifest, store, lambda done, total: steps.append((done, total)))
    assert steps == [(1, 1)]
    assert sample.mask_sources[0] == "expert"
    assert set(sample.mask_sources[1:]) <= {"otsu", "ellipse"}
    assert sample.masks[0] is not None
    np.testing.assert_array_equal(decode(sample.masks[0]), drawn)
    for mask, box in zip(sample.masks, sample.boxes, strict=True):
        assert mask is not None
        if mask is not sample.masks[0]:
            outer = box_to_rle(box, (200, 260))
            assert area(mask) > 0.3 * area(outer)
            assert (decode(mask) <= decode(outer)).all()


def test_difficult_cells_are_ignored_until_somebody_decides(database: Database, store: FileStore) -> None:
    """Open and confirmed: neither cell nor background. Resolved: trained on as what it is."""
    boxes = {
        name: (10.0 + 40 * i, 20.0, 40.0 + 40 * i, 50.0) for i, name in enumerate(("open", "confirmed", "resolved"))
    }
    ada, bob = ("ls:1:1", 0, "ada@x"), ("ls:1:2", 1, "bob@x")
    said = [("open", ada, DIFFICULT), ("confirmed", ada, DIFFICULT), ("confirmed", bob, DIFFICULT)]
    said += [("resolved", ada, DIFFICULT), ("resolved", bob, "ring")]
    with database.session() as session:
        image, _ = add_smear(session, store, 1)
        for name, (thread, minute, expert), label in said:
            cell = add_cell(session, image.id, name)
            say(session, cell, label, thread, minute, box=boxes[name], expert=expert)
        stands = {boxes[name] for name in ("open", "confirmed")}
        assert sorted(cell.state for cell in difficult_cells(session)) == sorted(boxes)
        manifests = [snapshot(session, role) for role in ROLES]
    for manifest in manifests:
        (sample,) = samples(manifest, store)
        assert sample.labels == ("ring",)
        np.testing.assert_array_equal(sample.boxes, [boxes["resolved"]])
        assert {tuple(box) for box in manifest.images[0].ignore_boxes().tolist()} == stands
        assert stands <= {tuple(box) for box in sample.ignore_boxes.tolist()}


def test_a_changed_image_file_is_noticed(sqlite_database: Database, store: FileStore) -> None:
    with sqlite_database.session() as session:
        image, smear = add_smear(session, store, 1)
        record_labels(session, image, objects_of(smear))
        manifest = snapshot(session, "all_cells")
    store.path(image.file).write_bytes(b"something else")
    with pytest.raises(StoredFileCorrupt):
        samples(manifest, store)


def test_truth_leaves_difficult_cells_to_the_ignored(database: Database, store: FileStore) -> None:
    with database.session() as session:
        image, smear = add_smear(session, store, 1, Split.test)
        record_labels(session, image, objects_of(smear, masks=True))
        bare, _ = add_smear(session, store, 2, Split.test)
        found, nothing = truth(session, [bare.id, image.id])
    instances = found.truth()
    np.testing.assert_array_equal(instances.boxes, smear.cells.boxes)
    np.testing.assert_array_equal(instances.labels, smear.cells.labels)
    assert [m["counts"] for m in instances.masks] == [m["counts"] for m in smear.cells.masks]
    np.testing.assert_array_equal(found.ignore_boxes(), smear.difficult)
    assert len(nothing.truth()) == len(nothing.ignore_boxes()) == 0


def test_border_strips() -> None:
    strips = border_strips(100, 60, 10.0)
    np.testing.assert_array_equal(strips, [[0, 0, 100, 10], [0, 50, 100, 60], [0, 0, 10, 60], [90, 0, 100, 60]])
    assert border_strips(100, 60, 0.0).shape == (0, 4)
