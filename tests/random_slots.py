"""Fields of the random slots that an expert has answered."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.orm import Session

from db import labels, predictions, queue
from db.models import Action, Image, ModelPair, Slot, Way
from db.queue import QueueEntry
from tests.builders import BOX, add_image, add_prediction, add_review

Box = tuple[float, float, float, float]
PLACES: tuple[Box, ...] = tuple((20.0 + 60 * n, 20.0, 60.0 + 60 * n, 60.0) for n in range(8))


def answer(
    session: Session,
    pair: ModelPair,
    corrected: int,
    *,
    image: Image | None = None,
    minute: float = 0,
    slot: Slot = Slot.random,
    boxes: Sequence[Box] = PLACES,
) -> Image:
    """A field shown by this pair as red blood cells, `corrected` of which the expert calls rings."""
    image = image or add_image(session)
    shown = add_prediction(session, image, pair, boxes)
    ranking = queue.latest_ranking(session) or queue.add_ranking(session, pair.id, {})
    queue.add_items(session, ranking.id, [QueueEntry(image.id, 1.0, {}, way=Way.field, slot=slot)])
    review = add_review(session, image, f"ls:1:{image.id}", minute, prediction_id=shown.id)
    cells = predictions.predicted_cells(session, shown.id)
    rows = [
        labels.revision(
            review,
            cell.cell_id,
            Action.relabelled if place < corrected else Action.accepted,
            "ring" if place < corrected else "red blood cell",
            (cell.x1, cell.y1, cell.x2, cell.y2),
        )
        for place, (cell, _) in enumerate(cells)
    ]
    labels.add_revisions(session, rows)
    queue.close(session, image.id, "done")
    assert BOX not in boxes, "places apart from those of other builders"
    return image
