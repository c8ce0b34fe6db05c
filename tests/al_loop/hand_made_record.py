"""A record whose history is known word for word: two experts, revisions, deletions, outlines, patients, files."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import cv2
import numpy as np
from sqlalchemy.orm import Session

from al_loop.formats.records import SourceObject
from al_loop.import_images import record_labels
from backend.instances import Rle
from backend.masks import ellipse_to_rle, encode, polygon_to_rle
from backend.store import FileStore
from db import images, labels
from db.cells import add_cell
from db.labels import current_labels
from db.models import Action, Image, Way
from db.session import Database
from tests.al_loop.sources import SIZE
from tests.builders import add_review, at, say

ADA, BOB = "ada@example.org", "bob@example.org"
TAKEN = datetime(2026, 1, 5, 8, 30, tzinfo=UTC)
AWKWARD = (0.1, 0.2, 0.1 + 30.7, 100 / 3)  # x + (x2 - x) is not x2, and percent round
BEFORE_BOB = at(15)


def polygon() -> Rle:
    return polygon_to_rle(np.array([[40.3, 10.2], [70.8, 15.5], [55.5, 45.1]]), SIZE)


def ring_of_pixels() -> Rle:
    """With a hole and a part of its own: no polygon could carry it."""
    mask = np.zeros(SIZE, dtype=bool)
    mask[5:25, 5:30] = True
    mask[10:15, 10:15] = False
    mask[40:43, 60:66] = True
    return encode(mask)


def _image(session: Session, store: FileStore, name: str, seed: int, **changes: Any) -> Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
    done, data = cv2.imencode(".png", pixels)
    assert done
    stored = store.put_bytes("images", data.tobytes(), ".png")
    row: dict[str, Any] = {"split": "train", "dataset": "coco", "group": f"coco:{name}"}
    return images.add_image(
        session, sha256=stored.sha256, file=stored.file, name=name, width=SIZE[1], height=SIZE[0], **{**row, **changes}
    )[0]


def make_record(database: Database, store: FileStore) -> None:
    """Seven images: one that two experts worked on, an empty one, two of one name, and three that no export takes."""
    with database.session() as session:
        field = _image(session, store, "field.png", 1, group="coco:P1/S1", patient="P1", taken_at=TAKEN)
        _two_experts(session, field)
        empty = _image(session, store, "empty.png", 2, split="test", group="coco:P2/S1", patient="P2")
        record_labels(session, empty, [])
        one = _image(session, store, "same name.png", 3, split="validation")
        outline = ring_of_pixels()
        record_labels(session, one, [SourceObject("schizont", (5.0, 5.0, 66.0, 43.0), outline, key="outlined")])
        other = _image(session, store, "same name.png", 4, split="validation", dataset="iml", group="iml:block+20")
        record_labels(session, other, [SourceObject("difficult", (1.0, 2.0, 31.0, 42.0))])
        partly = _image(session, store, "partly.png", 5)
        for number, label in enumerate(("ring", None)):
            say(session, add_cell(session, partly.id), label, f"ls:2:{number}", 30, way=Way.cell)
        _image(session, store, "nobody.png", 6)
        withdrawn = _image(session, store, "withdrawn.png", 7)
        cell = add_cell(session, withdrawn.id)
        say(session, cell, "ring", "ls:1:9", 31)
        say(session, cell, None, "ls:1:9", 32, "withdrawn")


def _two_experts(session: Session, image: Image) -> None:
    """Five cells. Until BEFORE_BOB: kept ring, moved trophozoite, drawn gametocyte, dropped red cell, doubted ring."""
    kept, moved, drawn, dropped, doubted = (add_cell(session, image.id, f"{n}-of-two") for n in range(5))
    say(session, kept, "ring", "ls:1:1", 1, "accepted", AWKWARD, ADA)
    say(session, moved, "ring", "ls:1:1", 2, "accepted", (10.0, 10.0, 30.0, 30.0), ADA)
    say(session, moved, "trophozoite", "ls:1:1", 3, "moved", (10.5, 9.25, 31.0, 30.0), ADA)
    say(session, dropped, "red blood cell", "ls:1:1", 4, "added", (50.0, 30.0, 70.0, 50.0), ADA)
    say(session, doubted, "ring", "ls:1:1", 5, "added", (30.0, 35.0, 45.0, 50.0), ADA)
    review = add_review(session, image, "ls:1:1", 6, expert=ADA)
    counts = polygon()["counts"]
    box = (40.3, 10.2, 70.8, 45.1)
    row = labels.revision(review, drawn.id, Action.added, "gametocyte", box, shape="polygon", mask=counts)
    labels.add_revisions(session, [row])
    say(session, dropped, None, "ls:1:2", 20, expert=BOB)
    say(session, doubted, "difficult", "ls:1:2", 21, box=(30.0, 35.0, 45.5, 50.0), expert=BOB)
    review = add_review(session, image, "ls:1:2", 22, expert=BOB)
    ellipse = ellipse_to_rle((20.7, 19.6), (10.2, 10.4), SIZE)["counts"]
    box = (10.5, 9.2, 30.9, 30.0)
    row = labels.revision(review, moved.id, Action.relabelled, "schizont", box, shape="ellipse", mask=ellipse)
    labels.add_revisions(session, [row])


def labels_of(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    """What the record says now: {sha256 of a labelled image: [(label, box, mask, shape)]}, in order."""
    with database.session(read_only=True) as session:
        found: dict[str, list[tuple[Any, ...]]] = {image.sha256: [] for image in labels.labelled_images(session)}
        by_id = {image.id: image.sha256 for image in labels.labelled_images(session)}
        for label in current_labels(session, by_id):
            if label.label is not None:
                found[by_id[label.image_id]].append((label.label, label.box, label.mask, label.shape))
    return {sha256: sorted(said, key=repr) for sha256, said in found.items()}
