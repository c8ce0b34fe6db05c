"""A record with something about two patients in every table there is, and files and tasks beside it."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select

from al_loop.formats.records import SourceObject
from al_loop.import_images import record_labels
from al_loop.rank import rank
from al_loop.ruler import freeze_ruler
from al_loop.snapshot import snapshot
from al_loop.sync import sync
from backend.crop_cache import CropCache
from db import images, inbox, predictions, runs, suspicions, versions
from db.models import Base, Cell, Image, ImageStain, PredictedCell, Prediction, Task
from db.session import Database
from tests import builders
from tests.al_loop.cell_workshop import answer_next, open_cells, push_both, sync_both
from tests.al_loop.workshop import Workshop, predict, submit_next
from tests.backend.smears import HEIGHT, WIDTH, png

ONE, OTHER = "P-1", "P-2"
CORNERS = {ONE: 3.328125, OTHER: 4.171875}  # px: x1 of every box of theirs, exact in every float
SPLITS = ("train", "train", "train", "test", "validation")  # of a patient's images; the last train image waits
COLOURS = ("mean_red", "mean_green", "mean_blue", "sd_red", "sd_green", "sd_blue")
Rows = dict[str, list[tuple[Any, ...]]]


@dataclass(frozen=True)
class Traces:
    """What would tell that something of a patient is left."""

    words: tuple[str, ...]
    numbers: tuple[float, ...]

    def __contains__(self, value: object) -> bool:
        if isinstance(value, bytes):
            packed = [struct.pack(kind, number) for kind in ("<f", "<d") for number in self.numbers]
            return any(word in value for word in [*packed, *(word.encode() for word in self.words)])
        return any(word in str(value) for word in [*self.words, *map(str, self.numbers)])


def fill(home: Path, database: Database) -> Workshop:
    """Both patients' fields, imported, predicted, ranked, pushed, answered, synced, suspected and trained on."""
    workshop = open_cells(home, database, images=0)
    with database.session() as session:
        pair = versions.active_pair(session)
        assert pair is not None
    own = {patient: [_add(workshop, patient, place) for place in range(len(SPLITS))] for patient in CORNERS}
    for patient, fields in own.items():
        x1 = CORNERS[patient]
        predict(
            workshop, pair.id, [image.id for image in fields[:3]], [(x1, 5.0, 20.0, 21.0), (x1 + 25, 5.0, 44.0, 21.0)]
        )
        with database.session() as session:
            for image in fields[3:]:
                record_labels(session, image, [SourceObject("ring", (x1, 6.0, 20.0, 22.0))])
    rank(database)
    push_both(workshop)
    for _ in CORNERS:
        submit_next(workshop)
        sync(workshop, workshop.fake, workshop.project)
        answer_next(workshop, "ring")
    sync_both(workshop)
    with database.session() as session:
        freeze_ruler(session)
        known = snapshot(session, "infected")
        builders.add_version(session, manifest=known.to_json(), manifest_sha256=known.sha256)
        for patient, fields in own.items():
            _mention(workshop, session, patient, fields)
    CropCache(workshop.settings.crops).put("ab", b"a crop")
    workshop.features.mkdir(parents=True)
    return workshop


def _add(workshop: Workshop, patient: str, place: int) -> Image:
    """A stored smear of this patient."""
    number = 10 * list(CORNERS).index(patient) + place
    stored = workshop.store.put_bytes("images", png(number), ".png")
    row = {"sha256": stored.sha256, "file": stored.file, "width": WIDTH, "height": HEIGHT, "split": SPLITS[place]}
    with workshop.database.session() as session:
        return builders.add_image(session, f"{patient}_{place}.png", patient=patient, **row)


def _mention(workshop: Workshop, session: Any, patient: str, fields: list[Image]) -> None:
    """What a failed training, a webhook, a request and a suspicion say of a patient's fields."""
    run = runs.open_run(session, "infected", "person", {}, {})
    assert run is not None
    runs.fail(session, run.id, f"{fields[0].file}: expected in the store, but it is missing ({fields[0].name})")
    workshop.run_folder(run.id).mkdir(parents=True)
    task = session.scalars(select(Task).where(Task.image_id == fields[0].id)).one()
    inbox.receive(
        session, "ANNOTATION_CREATED", {"project": workshop.project.ls_project_id, "tasks": [task.ls_task_id]}
    )
    predictions.request(session, fields[2].id)
    session.add(ImageStain(image_id=fields[0].id, **dict.fromkeys(COLOURS, 0.5)))
    details = [f"{fields[0].name}: ring ({CORNERS[patient]}, 1, 1, 1)", "another.png: ring (5, 1, 1, 1)"]
    report = {"source": f"/smears/{patient}", "examples": {"degenerate box": details}}
    images.add_import(session, source=f"/smears/{patient}", dataset="bbbc041", report=report)
    query = select(Prediction.pair_id, PredictedCell).join(PredictedCell, PredictedCell.prediction_id == Prediction.id)
    pair_id, seen = session.execute(query.where(Prediction.image_id == fields[0].id).limit(1)).one()
    suspicions.add_suspicions(
        session, [suspicions.SuspicionRow(pair_id, seen.cell_id, fields[0].id, None, seen.id, "overlooked", 0.9, "odd")]
    )


def dump(database: Database) -> Rows:
    """Every row of every table, sorted."""
    with database.session(read_only=True) as session:
        return {
            table.name: sorted((tuple(row) for row in session.execute(select(table))), key=repr)
            for table in Base.metadata.sorted_tables
        }


def of_patient(database: Database, patient: str) -> list[Image]:
    """The patient's images, oldest first."""
    with database.session(read_only=True) as session:
        return list(session.scalars(select(Image).where(Image.patient == patient).order_by(Image.id)))


def traces(database: Database, patient: str) -> Traces:
    """The patient's id, names, files, hashes, keys of cells, and the left border of the boxes, in px and in percent."""
    fields = of_patient(database, patient)
    with database.session(read_only=True) as session:
        keys = session.scalars(select(Cell.key).where(Cell.image_id.in_([image.id for image in fields]))).all()
    words = [text for image in fields for text in (image.sha256, image.file, image.name)]
    left = CORNERS[patient]
    return Traces((patient, *words, *keys), (left, left / WIDTH * 100))


def tasks_of(workshop: Workshop, image_ids: list[int]) -> set[int]:
    """Label Studio's ids of the tasks of these images and of their cells."""
    found = set()
    for table in ("tasks", "cell_tasks"):
        model = Base.metadata.tables[table]
        with workshop.database.session(read_only=True) as session:
            found.update(session.scalars(select(model.c.ls_task_id).where(model.c.image_id.in_(image_ids))))
    return found


def add_patient(workshop: Workshop, patient: str = ONE, images: int = 2, **changes: Any) -> list[int]:
    """Images of a patient with a reviewed cell each, and their files; their ids."""
    found = []
    for number in range(images):
        stored = workshop.store.put_bytes("images", f"{patient} {number}".encode(), ".png")
        with workshop.database.session() as session:
            row = {"sha256": stored.sha256, "file": stored.file, "patient": patient, **changes}
            image = builders.add_image(session, f"{patient}_{number}.png", **row)
            builders.say(session, builders.add_cell(session, image), "ring", f"ls:1:{image.id}")
            found.append(image.id)
    return found
