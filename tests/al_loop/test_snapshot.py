"""Cells reviewed one by one: known where an expert looked, unknown everywhere else."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import cv2
import pytest
import torch
from sqlalchemy.orm import Session

from al_loop.crops import cache_image
from al_loop.dataset import DatasetManifest, LabelledCell, LabelledImage, Partial, content_hash, samples
from al_loop.render import render_smear
from al_loop.ruler import freeze_ruler
from al_loop.snapshot import reproduced, snapshot
from al_loop.train_config import data_hash
from backend.detect import DetectorConfig
from backend.errors import NotEnoughData
from backend.store import FileStore
from backend.unknown_truth import TruthRules, unknown_truth
from db.labels import newest_revision_id
from db.models import Cell, Image, Way
from db.predictions import predicted_cells
from db.session import Database
from tests.builders import add_active_pair, add_image, add_prediction, add_version, say

SIZE = (200, 260)
BOXES = [
    (20.0 + 45 * column, 20.0 + 60 * row, 55.0 + 45 * column, 60.0 + 60 * row) for row in (0, 1) for column in range(5)
]
RING, RED, NOTHING, DOUBTFUL, *UNREVIEWED = range(10)
SAID = {RING: "ring", RED: "red blood cell", NOTHING: None, DOUBTFUL: "difficult"}


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "files")


def add_field(session: Session, store: FileStore, name: str, **changes: object) -> Image:
    """A stored image of 260 x 200 px."""
    smear = render_smear(sum(map(ord, name)), SIZE, 10)
    stored = store.put_bytes("images", cv2.imencode(".png", smear.image[..., ::-1])[1].tobytes(), ".png")
    return add_image(session, name, sha256=stored.sha256, file=stored.file, width=260, height=200, **changes)


def predict(session: Session, image: Image, boxes: list[tuple[float, ...]] = BOXES) -> list[Cell]:
    """The cells of a new pair's prediction."""
    stored = add_prediction(session, image, add_active_pair(session), boxes)
    return [session.get_one(Cell, cell.cell_id) for cell, _ in predicted_cells(session, stored.id)]


def review(session: Session, cells: list[Cell], said: dict[int, str | None] = SAID, way: Way = Way.cell) -> None:
    """One annotation per cell, as experts give them cell by cell."""
    for number, label in said.items():
        say(session, cells[number], label, f"ls:2:{cells[number].id}", box=BOXES[number], way=way)


def test_what_nobody_reviewed_is_nobodys_example(database: Database, store: FileStore) -> None:
    with database.session() as session:
        review(session, predict(session, add_field(session, store, "a")))
        everything, infected = snapshot(session, "all_cells"), snapshot(session, "infected")
    (image,) = everything.images
    assert {cell.label: cell.box for cell in image.cells} == {SAID[i]: BOXES[i] for i in (RING, RED, DOUBTFUL)}
    assert image.partial == Partial((BOXES[NOTHING],), tuple(BOXES[i] for i in UNREVIEWED))
    (of_stages,) = infected.images
    assert [cell.label for cell in of_stages.cells] == ["ring", "difficult"]
    assert of_stages.partial == Partial((BOXES[RED], BOXES[NOTHING]), image.partial.unreviewed)
    (sample,) = samples(infected, store)
    assert sample.labels == ("ring",)
    assert sample.reviewed is not None
    assert sample.reviewed.tolist() == [list(BOXES[i]) for i in (RING, RED, NOTHING)]
    assert sample.known == 3 / 10
    taught = cache_image(sample, DetectorConfig(role="infected", short_side=200))
    target = {"boxes": torch.from_numpy(taught.boxes), "ignore_boxes": torch.from_numpy(taught.ignore)}
    unknown = unknown_truth(torch.tensor(BOXES), target, SIZE, TruthRules()).tolist()
    assert [i for i in range(10) if unknown[i]] == [DOUBTFUL, *UNREVIEWED]


def test_a_submitted_field_makes_an_image_whole(database: Database, store: FileStore) -> None:
    with database.session() as session:
        cells = predict(session, add_field(session, store, "a"))
        review(session, cells)
        before = snapshot(session, "all_cells")
        say(session, cells[UNREVIEWED[0]], "leukocyte", "ls:1:1", box=BOXES[UNREVIEWED[0]])
        whole = snapshot(session, "all_cells")
        assert snapshot(session, "all_cells", before.newest_revision_id) == before
    assert whole.images[0].partial is None
    assert len(whole.images[0].cells) == 4
    assert whole.sha256 != before.sha256


def test_a_training_finds_its_labels_again_whatever_is_predicted_meanwhile(
    database: Database, store: FileStore
) -> None:
    with database.session() as session:
        image = add_field(session, store, "a")
        review(session, predict(session, image))
        opened = newest_revision_id(session)
        before = snapshot(session, "infected", opened)
        cells = predict(session, image, BOXES[:6])
        assert snapshot(session, "infected", opened) == before
        say(session, cells[4], "ring", "ls:2:99", box=BOXES[4], way=Way.cell)
        assert snapshot(session, "infected", opened) == before
        (later,) = snapshot(session, "infected").images
    assert later.partial is not None
    assert later.partial.unreviewed == (BOXES[5],)


def test_without_a_prediction_all_the_rest_is_unknown(database: Database, store: FileStore) -> None:
    with database.session() as session:
        image = add_field(session, store, "a")
        cell = Cell(image_id=image.id, key="drawn")
        session.add(cell)
        session.flush()
        say(session, cell, "ring", box=BOXES[0], way=Way.cell)
        (found,) = snapshot(session, "all_cells").images
    assert found.partial == Partial((), ((0.0, 0.0, 260.0, 200.0),))


def test_images_that_teach_a_role_nothing_are_left_out(database: Database, store: FileStore) -> None:
    with database.session() as session:
        review(session, predict(session, add_field(session, store, "doubts")), {RING: "difficult"})
        with pytest.raises(NotEnoughData, match="review some images"):
            snapshot(session, "infected")
        review(session, predict(session, add_field(session, store, "ring")), {RING: "ring"})
        review(session, predict(session, add_field(session, store, "red")), {RED: "red blood cell"})
        assert [len(image.cells) for image in snapshot(session, "infected").images] == [1, 0]


def test_the_manifest_says_what_is_partial_and_survives_json(database: Database, store: FileStore) -> None:
    with database.session() as session:
        review(session, predict(session, add_field(session, store, "part")))
        say(session, predict(session, add_field(session, store, "whole"))[0], "ring", "ls:1:1", box=BOXES[0])
        manifest = snapshot(session, "all_cells")
    stored = json.loads(json.dumps(manifest.to_json()))
    assert sorted(image["partial"] is None for image in stored["images"]) == [False, True]
    assert DatasetManifest.from_json(stored) == manifest
    assert content_hash(manifest.images[::-1]) == manifest.sha256
    for image in stored["images"]:
        if image["partial"] is None:
            del image["partial"]  # as a version of an earlier release has it
    assert DatasetManifest.from_json(stored) == manifest


def test_hashes_of_complete_images_are_what_they_always_were() -> None:
    image = LabelledImage("ab" * 32, "images/ab.png", 100, 80, (LabelledCell("ring", (1.0, 2.0, 30.123, 40.0)),))
    rows = [["ab" * 32, [["ring", [1.0, 2.0, 30.12, 40.0], ""]]]]
    assert content_hash([image]) == hashlib.sha256(json.dumps(rows, separators=(",", ":")).encode()).hexdigest()
    part = replace(image, partial=Partial())
    other = replace(image, partial=Partial(unreviewed=((5.0, 5.0, 9.0, 9.0),)))
    assert len({content_hash([each]) for each in (image, part, other)}) == 3


def test_samples_of_partial_images_hash_differently(database: Database, store: FileStore) -> None:
    with database.session() as session:
        review(session, predict(session, add_field(session, store, "a")))
        (sample,) = samples(snapshot(session, "all_cells"), store)
    assert data_hash([replace(sample, reviewed=None, known=1.0)]) != data_hash([sample])


def test_only_completely_labelled_images_judge(database: Database, store: FileStore) -> None:
    with database.session() as session:
        review(session, predict(session, add_field(session, store, "part", split="test")))
        assert freeze_ruler(session) is None
        say(session, predict(session, add_field(session, store, "whole", split="test"))[0], "ring", box=BOXES[0])
        assert freeze_ruler(session) is not None
        with pytest.raises(NotEnoughData):
            snapshot(session, "all_cells")


def test_a_version_finds_its_training_set_again_whatever_came_since(database: Database, store: FileStore) -> None:
    with database.session() as session:
        field, part, late = (add_field(session, store, name) for name in ("field", "part", "late"))
        cells = {image.id: predict(session, image) for image in (field, part, late)}
        review(session, cells[field.id], way=Way.field)
        review(session, cells[part.id])
        made = snapshot(session, "infected")
        version = add_version(session, "infected", manifest=json.loads(json.dumps(made.to_json())))
        review(session, cells[late.id], way=Way.field)  # more labels, another answer, a withdrawal
        say(session, cells[part.id][RING], "schizont", f"ls:2:{cells[part.id][RING].id}", 9, way=Way.cell)
        say(session, cells[field.id][RING], None, f"ls:2:{cells[field.id][RING].id}", 9, "withdrawn")
        assert snapshot(session, "infected").sha256 != made.sha256
        assert reproduced(session, version.id)
        forged = made.to_json() | {"images": made.to_json()["images"][1:]}
        assert not reproduced(session, add_version(session, "infected", manifest=forged).id)
        with pytest.raises(NotEnoughData, match="expected one that was trained on labels of this record"):
            reproduced(session, add_version(session, "infected").id)
