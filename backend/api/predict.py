"""/predict: one item for every task, from stored predictions, and as much more as the time allows.

Label Studio gives a whole request 100 s, whether it holds one task or thousands, and hides every failure. So:

* What SQL holds is answered from SQL, in a handful of statements for all tasks.
* What is missing is detected while the time budget lasts, and the rest is requested from the worker.
* A task that cannot be answered now (no model yet, still in the queue, an image outside the allowed folders, an
  unreadable one) gets an item *without* `result`, holding the reason instead. Label Studio stores nothing for such an
  item, puts the reason in its log, and asks again when the task is opened next. An item with an empty `result`
  would be stored as "no cells here", with a score that moves the task in the queue, and the task would never be
  predicted again under this version: an expert would take it for the model's opinion.
* An image in which the pair found no cell does get an empty `result`: that is the model's opinion.
"""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from fastapi import APIRouter, Depends, Response

from backend.api import auth
from backend.api.deps import Server, ServerDep
from backend.api.health import UNTRAINED
from backend.api.metrics import Source
from backend.api.refusals import refusals
from backend.api.task_images import TaskImage
from backend.errors import CellloopError
from backend.label_studio import label_config
from backend.label_studio.label_config import Kind, LabelConfig
from backend.label_studio.protocol import PredictRequest, priority_to_score
from backend.label_studio.regions import to_regions
from backend.logs import about
from backend.serving import active_pair, predict_and_store, regions_of
from db import predictions
from db.answers import Answer, ServingPair, answers
from db.models import Image

log = logging.getLogger(__name__)
router = APIRouter(dependencies=[Depends(auth.ml_backend)], responses=refusals(401, 422))

Item = dict[str, Any]


@router.post("/predict")
def predict(server: ServerDep, body: PredictRequest, shape: Kind | None = None) -> Response:
    """Exactly one item per task, in order.

    shape: overrules the control we would choose. Brush masks are sent only when a program asks for `shape=brush`:
    a hundred of them take Label Studio's editor a quarter of a minute to load. Raises UnusableLabelConfig.
    """
    deadline = time.monotonic() + server.settings.predict_budget_s
    row = active_pair(server.database)
    if body.params.context is not None:
        return _reply([_unchanged(body, row)] * len(body.tasks))
    config = label_config.parse(body.label_config)
    if row is None:
        return _reply([_unanswered(UNTRAINED, "no model is trained yet")] * len(body.tasks))

    found = _images(server, body, config, deadline)
    images = {image.id: image for image in found if isinstance(image, Image)}
    with server.database.session(read_only=True) as session:
        stored = answers(session, row.id, list(images))
    missing = [image for image_id, image in images.items() if image_id not in stored]
    masks = shape in ("brush", "polygon") or config.wants_masks
    failed = _detect(server, row, missing, masks, deadline)
    if missing:
        with server.database.session(read_only=True) as session:
            stored |= answers(session, row.id, [image.id for image in missing])
    rest = [image for image in missing if image.id not in stored and image.id not in failed]
    _request(server, rest)

    items = {id_: _answered(row, stored[id_], image, config, shape) for id_, image in images.items() if id_ in stored}
    _count(server, found, items, {image.id for image in missing}, failed)
    return _reply([_item(entry, row, items, failed) for entry in found])


def _images(server: Server, body: PredictRequest, config: LabelConfig, deadline: float) -> list[Image | CellloopError]:
    tasks = [TaskImage(task.id, task.data.get(config.value_key)) for task in body.tasks]
    found = server.images.resolve(tasks, body.project_id, deadline)
    for task, image in zip(tasks, found, strict=True):
        if isinstance(image, CellloopError):
            log.warning("task %s is not predicted: %s", task.task_id, image)
    return found


def _detect(
    server: Server, row: ServingPair, missing: Sequence[Image], masks: bool, deadline: float
) -> dict[int, Exception]:
    """Predict and store images in order while the budget lasts; errors by image id. One request detects at a time."""
    failed: dict[int, Exception] = {}
    with _turn(server, deadline) if missing else nullcontext(False) as ours:
        slowest = 0.0
        for image in missing if ours else ():
            started = time.monotonic()
            if started + slowest >= deadline or server.stopping.is_set():  # it would end after the budget
                break
            with about(image=image.id):
                try:
                    # Loading is part of the loop: it happens once, and only if there is time left to use it.
                    served = server.pairs.of(row)
                    predict_and_store(server.database, server.store, served, image, masks=masks)
                except Exception as error:  # of ours, torch's, OpenCV's: one image costs no other its answer
                    log.error("image %s is not predicted: %s", image.name, error)
                    failed[image.id] = error
            slowest = max(slowest, time.monotonic() - started)
    return failed


@contextmanager
def _turn(server: Server, deadline: float) -> Iterator[bool]:
    """Whether it is this request's turn to detect, before the deadline.

    Few may wait: each holds a thread, and who only wants what is stored must find one free.
    """
    if not server.waiting.acquire(blocking=False):
        yield False
        return
    try:
        ours = server.detecting.acquire(timeout=max(0.0, deadline - time.monotonic()))
        try:
            yield ours
        finally:
            if ours:
                server.detecting.release()
    finally:
        server.waiting.release()


def _request(server: Server, images: Sequence[Image]) -> None:
    if images:
        log.info("%d images are left to the worker", len(images))
        with server.database.session() as session:
            for image in images:
                predictions.request(session, image.id)


def _count(
    server: Server,
    found: Sequence[Image | CellloopError],
    items: Mapping[int, Item],
    missing: Collection[int],
    failed: Mapping[int, Exception],
) -> None:
    sources = Counter[Source]()
    for entry in found:
        if isinstance(entry, CellloopError) or entry.id in failed:
            sources["refused"] += 1
        elif entry.id not in items:
            sources["left"] += 1
        else:
            sources["detected" if entry.id in missing else "stored"] += 1
    for source, tasks in sources.items():
        server.metrics.predicted(source, tasks)


def _item(entry: Image | CellloopError, row: ServingPair, items: dict[int, Item], failed: dict[int, Exception]) -> Item:
    if isinstance(entry, CellloopError):
        return _unanswered(row.name, str(entry))
    if entry.id in items:
        return items[entry.id]
    if entry.id in failed:
        return _unanswered(row.name, _public(failed[entry.id]))
    return _unanswered(row.name, "waits for the worker; open the task again in a while")


def _public(error: Exception) -> str:
    # Only our own errors are written to be read by strangers; others may hold paths of this machine.
    return str(error) if isinstance(error, CellloopError) else "detecting failed; see the backend's log"


def _answered(row: ServingPair, answer: Answer, image: Image, config: LabelConfig, shape: Kind | None) -> Item:
    size = (image.height, image.width)
    regions = to_regions(regions_of(answer, size), config, size, shape)
    return {"model_version": row.name, "score": priority_to_score(answer.priority), "result": regions}


def _unanswered(version: str, reason: str) -> Item:
    return {"model_version": version, "reason": reason}


def _unchanged(body: PredictRequest, row: ServingPair | None) -> Item:
    # Interactive pre-annotation: the expert is drawing, and whatever we return is laid over the drawing. The regions
    # on the screen, under their own ids, change nothing and lose nothing.
    context = body.params.context or {}
    return {"model_version": row.name if row else UNTRAINED, "score": 0.0, "result": context.get("result") or []}


def _reply(items: Sequence[Item]) -> Response:
    # Dumped here: FastAPI's own way through a model of every region is ten times slower on 1,500 tasks. One by one,
    # because a dump lets no other thread run, and 40 MB at once would keep /health waiting for over a second.
    dumped = ",".join(json.dumps(item, separators=(",", ":"), allow_nan=False) for item in items)
    return Response(f'{{"results":[{dumped}]}}', media_type="application/json")
