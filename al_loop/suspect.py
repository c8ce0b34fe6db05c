"""Look for labels that may be wrong, by predictions of pairs that never trained on them, and record what is found.

A prediction that was there before its image was labelled is out of fold by itself; so is one of a pair that came
later but was not trained on the image. What was imported with labels was never predicted: `predict_labelled` does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy.orm import Session

from al_loop.context import Loop
from al_loop.preannotate_pool import preannotate_images
from al_loop.seen_images import trained_on
from al_loop.suspicion import KINDS, UNDECIDED, LabelledField, Suspect, suspects
from backend.instances import CLASS_INDEX, CLASSES, SOURCES, FusedInstances, Instances
from backend.serving import PairCache
from db import versions
from db.labels import LiveLabel, current_labels, labelled_images
from db.models import Image, ModelPair, Prediction, Split
from db.session import Database
from db.suspicions import SuspicionRow, add_suspicions, labelled_predictions, seen_cells


@dataclass(frozen=True)
class SuspectReport:
    """images: looked at. found: labels in doubt, by kind. added: of them, not known before."""

    images: int
    found: dict[str, int]
    added: int


def suspect(database: Database) -> SuspectReport:
    """Record every label in doubt on the train images that have an honest prediction."""
    with database.session(read_only=True) as session:
        chosen = honest_predictions(session)
        labels: dict[int, list[LiveLabel]] = {}
        for label in current_labels(session, chosen.keys()):
            if label.box is not None:
                labels.setdefault(label.image_id, []).append(label)
        cells = {image_id: seen_cells(session, prediction.id) for image_id, (prediction, _) in chosen.items()}
    fields = [
        _field(image, labels.get(image_id, []), cells[image_id]) for image_id, (_, image) in sorted(chosen.items())
    ]
    found = suspects(fields)
    rows = [_row(each, chosen[each.image][0], labels.get(each.image, []), cells[each.image]) for each in found]
    with database.session() as session:
        added = add_suspicions(session, rows)
    kinds = [each.kind for each in found]
    return SuspectReport(len(fields), {kind: kinds.count(kind) for kind in KINDS if kind in kinds}, added)


def honest_predictions(session: Session) -> dict[int, tuple[Prediction, Image]]:
    """The newest prediction of each labelled train image by a pair neither model of which trained on the image."""
    seen: dict[int, set[str]] = {}
    found: dict[int, tuple[Prediction, Image]] = {}
    for prediction, image, pair in labelled_predictions(session):
        if image.id not in found and image.sha256 not in seen.setdefault(pair.id, _trained(session, pair)):
            found[image.id] = (prediction, image)
    return found


def _trained(session: Session, pair: ModelPair) -> set[str]:
    return set().union(*(trained_on(versions.get(session, each)) for each in (pair.all_cells_id, pair.infected_id)))


def predict_labelled(loop: Loop, on_progress: Callable[[int, int], None] = lambda done, total: None) -> int:
    """Let the serving pair predict the labelled train images it never trained on; how many it could.

    Raises NoTrainedModel.
    """
    served = PairCache(loop.database, loop.store, loop.settings.device).current()
    with loop.database.session(read_only=True) as session:
        known = honest_predictions(session)
        trained = set().union(
            *(trained_on(versions.get(session, each)) for each in (served.row.all_cells_id, served.row.infected_id))
        )
        images = [image for image in labelled_images(session, Split.train) if image.id not in known]
    wanted = [image for image in images if image.sha256 not in trained]
    return preannotate_images(loop, served, wanted, on_progress) if wanted else 0


def _field(image: Image, labels: Sequence[LiveLabel], cells: Sequence[Any]) -> LabelledField:
    boxes = np.array([label.box for label in labels], dtype=np.float32).reshape(-1, 4)
    named = [CLASS_INDEX.get(label.label or "", UNDECIDED) for label in labels]
    return LabelledField(image.id, boxes, np.array(named, dtype=np.int64), fused((image.height, image.width), cells))


def fused(image_size: tuple[int, int], cells: Sequence[Any]) -> FusedInstances:
    """Stored cells (rows of `db.suspicions.seen_cells`) as they were when they were fused, without masks."""

    def column(name: str) -> Any:
        return np.array([getattr(row, name) for row in cells], dtype=np.float32)  # None becomes NaN

    instances = Instances(
        image_size=image_size,
        boxes=np.array([(row.x1, row.y1, row.x2, row.y2) for row in cells], dtype=np.float32).reshape(-1, 4),
        labels=np.array([CLASS_INDEX[row.label] for row in cells], dtype=np.int64),
        scores=column("score"),
        probabilities=np.array([row.probabilities for row in cells], dtype=np.float32).reshape(-1, len(CLASSES)),
    )
    return FusedInstances(
        cells=instances,
        score_all_cells=column("score_all_cells"),
        score_infected=column("score_infected"),
        sources=np.array([SOURCES.index(row.source) for row in cells], dtype=np.int64),
        pair_iou=column("pair_iou"),
        disputed=np.array([row.disputed for row in cells], dtype=bool),
    )


def _row(found: Suspect, prediction: Prediction, labels: Sequence[LiveLabel], cells: Sequence[Any]) -> SuspicionRow:
    label = None if found.kind == "overlooked" else labels[found.cell]
    seen = cells[found.cell] if label is None else next((c for c in cells if c.cell_id == label.cell_id), None)
    return SuspicionRow(
        pair_id=prediction.pair_id,
        cell_id=cells[found.cell].cell_id if label is None else label.cell_id,
        image_id=found.image,
        revision_id=None if label is None else label.revision_id,
        predicted_cell_id=None if seen is None else seen.id,
        kind=found.kind,
        score=found.score,
        reason=found.reason,
    )
