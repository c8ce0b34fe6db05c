"""An installation to put under load: rendered fields predicted for real, copies of them as rows, and a full queue.

Copies have a prediction but no file: answering from the record needs none. Crops, and servers that detect at each
request, get the real ones.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from al_loop.context import Loop
from al_loop.import_images import import_images
from al_loop.preannotate_pool import preannotate_images
from al_loop.rendered import write_coco_folder
from al_loop.starter_install import install_starter
from backend.crop_address import crop_name
from backend.label_studio.cell_config import default_cell_config, parse_cells, result_of
from backend.label_studio.label_config import default_config, parse
from backend.label_studio.regions import to_regions
from backend.serving import PairCache, regions_of
from backend.tokens import issue
from db import cell_tasks, images, predictions, projects, queue
from db.answers import answers
from db.models import Image, Way
from db.predictions import CellRow
from db.tokens import Scope

FIELDS, CELLS = 1, 2  # Label Studio's ids of the two projects
CELL_TASKS = 1_000_000  # ids of their tasks begin here
PREDICTIONS = 5_000_000
ANSWER = "ring"
CREATED = 1_700_000_000


@dataclass(frozen=True)
class LoadTask:
    """What an expert is given and gives back. opened: body of the /predict that Label Studio sends for a field, or the
    address of a cell's crop. result: regions or choice as JSON, as the editor submits them."""

    ls_project_id: int
    ls_task_id: int
    data: dict[str, Any]
    opened: str
    result: str
    parent_prediction: int | None = None


@dataclass
class LoadPlan:
    """Tasks by queue item. token: may take items. real: tasks of the fields whose files are there; none waits."""

    token: str
    tasks: dict[int, LoadTask] = field(default_factory=dict)
    real: list[LoadTask] = field(default_factory=list)


def prepare(
    loop: Loop,
    weights: Path,
    scratch: Path,
    fields: int,
    size: tuple[int, int],
    cells: int,
    copies: int,
    on_progress: Callable[[int, int, str], None],
) -> LoadPlan:
    """Fill an empty, migrated installation. fields: rendered and predicted; copies: rows like them.

    size: (h, w) px of a field with `cells` cells. Both projects' url is the settings' Label Studio.
    """
    folder = write_coco_folder(
        scratch / "fields", fields, size=size, cells=cells, on_progress=lambda n, of: on_progress(n, of, "rendering")
    )
    import_images(loop.database, loop.store, folder, label_share=0.0)
    install_starter(loop, weights)
    served = PairCache(loop.database, loop.store, loop.settings.device).current()
    with loop.database.session(read_only=True) as session:
        originals = list(images.some(session, most=fields))
    preannotate_images(loop, served, originals, lambda n, of: on_progress(n, of, "predicting"))
    plan = LoadPlan(issue(loop.database, "experts", Scope.review).text)
    with loop.database.session() as session:
        made = _copies(session, served.row.id, originals, copies)
        _queue(session, served.row.id, originals, made)
        _fields(session, loop, served.row.id, [*originals, *made], plan)
        _cells(session, loop, plan)
    return plan


def _copies(session: Session, pair_id: int, originals: list[Image], count: int) -> list[Image]:
    seen = {}
    for image in originals:
        prediction = predictions.get_prediction(session, image.id, pair_id)
        rows = predictions.predicted_cells(session, prediction.id) if prediction is not None else []
        seen[image.id] = [
            CellRow(
                None, (row.x1, row.y1, row.x2, row.y2), row.label, row.score, row.probabilities, row.score_all_cells,
                row.score_infected, row.source, row.pair_iou, row.disputed, row.mask,
            )
            for row, _ in rows
        ]  # fmt: skip
    made = []
    for number in range(count):
        original = originals[number % len(originals)]
        digest = hashlib.sha256(f"copy {number}".encode()).hexdigest()
        image, _ = images.add_image(
            session, sha256=digest, file=f"images/{digest[:2]}/{digest}.png", name=f"copy {number}",
            width=original.width, height=original.height, group=original.group, split="train", dataset="rendered",
        )  # fmt: skip
        predictions.add_prediction(session, image.id, pair_id, seen[original.id], 0.0)
        made.append(image)
    return made


def _queue(session: Session, pair_id: int, originals: list[Image], made: list[Image]) -> None:
    """Every copy waits as a field, and every predicted cell of the real ones: a field that is done takes its cells."""
    ranking = queue.add_ranking(session, pair_id, {"of": "a load test"})
    entries = [queue.QueueEntry(image.id, 1.0 + 1.0 / n, {}) for n, image in enumerate(made, start=1)]
    for image in originals:
        prediction = predictions.get_prediction(session, image.id, pair_id)
        for row, _ in predictions.predicted_cells(session, prediction.id) if prediction is not None else []:
            entry = queue.QueueEntry(image.id, row.score, {}, Way.cell, cell_id=row.cell_id, predicted_cell_id=row.id)
            entries.append(entry)
    queue.replace_queue(session, ranking.id, entries)


def _fields(session: Session, loop: Loop, pair_id: int, everything: list[Image], plan: LoadPlan) -> None:
    config = parse(default_config())
    project = projects.upsert_project(
        session, url=loop.settings.label_studio_url, ls_project_id=FIELDS, title="fields", label_config=default_config()
    )
    rows = projects.add_tasks(session, project.id, [(image.id, image.id) for image in everything])
    items = {item.image_id: item for item in queue.pending(session, Way.field)}
    found = answers(session, pair_id, [image.id for image in everything])
    for row, image in zip(rows, everything, strict=True):
        answer, size = found[image.id], (image.height, image.width)
        shown = to_regions(regions_of(answer, size), config, size)
        result = json.dumps([{**region, "origin": "prediction"} for region in shown])
        data = {"image": f"/data/local-files/?d={image.file}"}
        parent = PREDICTIONS + image.id
        projects.mark_pushed(session, row.id, answer.prediction_id, parent, 0.5)
        task = LoadTask(FIELDS, image.id, data, _predict(image.id, data), result, parent)
        if image.id in items:
            plan.tasks[items[image.id].id] = task
        else:
            plan.real.append(task)


def _predict(ls_task_id: int, data: dict[str, Any]) -> str:
    """The body of Label Studio's /predict for one task."""
    task = {"id": ls_task_id, "data": data, "meta": {}, "project": FIELDS, "annotations": [], "predictions": []}
    params = {"login": None, "password": None, "context": None}
    body = {"tasks": [task], "project": f"{FIELDS}.{CREATED}", "label_config": default_config(), "params": params}
    return json.dumps(body)


def _cells(session: Session, loop: Loop, plan: LoadPlan) -> None:
    xml = default_cell_config()
    project = projects.upsert_project(
        session, url=loop.settings.label_studio_url, ls_project_id=CELLS, title="cells", label_config=xml, way=Way.cell
    )
    result = json.dumps(result_of(ANSWER, parse_cells(xml)))
    items = queue.pending(session, Way.cell)
    cell_tasks.add(session, project.id, [(CELL_TASKS + item.id, item.id) for item in items])
    for item in items:
        crop = f"/crops/{crop_name(item.id, loop.credentials.crop_key)}"
        data = {"item": item.id, "crop": crop, "question": "What is the outlined cell?"}
        plan.tasks[item.id] = LoadTask(CELLS, CELL_TASKS + item.id, data, crop, result)
