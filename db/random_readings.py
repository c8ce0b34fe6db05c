"""What experts found in the random slots: the only reviews that say something about the cells nobody has seen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.chunks import chunks
from db.labels import current_labels
from db.models import (
    Evaluation,
    ItemStatus,
    Metric,
    ModelPair,
    ModelVersion,
    PredictedCell,
    ReviewItem,
    Slot,
    Way,
)
from db.readings import live_readings


@dataclass(frozen=True)
class RandomReading:
    """One cell that chance put before an expert. label: what was said first, None: no cell.

    probabilities: what the models said when it was drawn, None where they had seen no cell. draw: cells with the same
    one came together (a whole field).
    """

    cell_id: int
    draw: int
    label: str | None
    probabilities: Sequence[float] | None


def random_readings(session: Session) -> list[RandomReading]:
    """Every cell of an answered random item, in the order of the items."""
    query = select(ReviewItem).where(ReviewItem.slot == Slot.random, ReviewItem.status == ItemStatus.done)
    items = session.scalars(query.order_by(ReviewItem.id)).all()
    cells = {item.cell_id: item.id for item in items if item.way == Way.cell and item.cell_id is not None}
    fields = {item.image_id: item for item in items if item.way == Way.field}
    for label in current_labels(session, fields.keys()):
        cells.setdefault(label.cell_id, fields[label.image_id].id)
    first = {cell_id: readings[0].label for cell_id, readings in live_readings(session, cells).items()}
    shown = _shown(session, [item.predicted_cell_id for item in items if item.predicted_cell_id is not None])
    shown |= _earliest(session, cells.keys() - shown.keys())
    return [RandomReading(cell, cells[cell], label, shown.get(cell)) for cell, label in first.items()]


def _shown(session: Session, predicted_cell_ids: Sequence[int]) -> dict[int, list[float]]:
    found: dict[int, list[float]] = {}
    for chunk in chunks(predicted_cell_ids):
        query = select(PredictedCell.cell_id, PredictedCell.probabilities)
        rows = session.execute(query.where(PredictedCell.id.in_(chunk)))
        found |= {cell: shares for cell, shares in rows}
    return found


def _earliest(session: Session, cell_ids: Iterable[int]) -> dict[int, list[float]]:
    """Probabilities of each cell by the first prediction that saw it: the one its field was shown with."""
    found: dict[int, list[float]] = {}
    for chunk in chunks(cell_ids):
        query = (
            select(PredictedCell.cell_id, PredictedCell.probabilities)
            .where(PredictedCell.cell_id.in_(chunk))
            .order_by(PredictedCell.id.desc())
        )
        found |= {cell: shares for cell, shares in session.execute(query)}
    return found


def learning_curve(session: Session, split: str, metric: str) -> list[tuple[int, float, float, float]]:
    """(labels learned from, value, low, high) of every evaluated `infected` version, on the newest state of a split."""
    newest = select(Evaluation.split_sha256).where(Evaluation.split == split).order_by(Evaluation.id.desc()).limit(1)
    query = (
        select(ModelVersion, Metric)
        .join(ModelPair, ModelPair.infected_id == ModelVersion.id)
        .join(Evaluation, Evaluation.pair_id == ModelPair.id)
        .join(Metric, Metric.evaluation_id == Evaluation.id)
        .where(Evaluation.split == split, Evaluation.split_sha256 == newest.scalar_subquery())
        .where(Metric.name == metric, Metric.class_name == "", Metric.low.is_not(None))
        .order_by(Evaluation.id)
    )
    points: dict[int, tuple[int, float, float, float]] = {}
    for version, row in session.execute(query):
        labels = sum(len(image.get("cells", ())) for image in version.manifest.get("images", ()))
        if labels and row.value is not None and row.low is not None and row.high is not None:
            points[version.id] = (labels, row.value, row.low, row.high)
    return list(points.values())
