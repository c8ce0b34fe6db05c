"""The pool as a ranking reads it: the packed cells of one pair in the images that wait, and what is known of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db.images import images_with_live_review, pool_query
from db.labels import last_revisions
from db.models import (
    Action,
    Image,
    LabelRevision,
    ModelPair,
    PackedPrediction,
    Prediction,
    Review,
    ReviewStatus,
    Split,
    Way,
)
from db.packed import PackedCells, unpack


@dataclass(frozen=True)
class WaitingImages:
    """Pool images this pair has predicted, those without a single cell included, in the order of their ids.

    ids, predictions, slides: (M,) int64; slide: any number that its images share. cells: all their cells.
    """

    ids: NDArray[np.int64]
    predictions: NDArray[np.int64]
    slides: NDArray[np.int64]
    cells: PackedCells

    def __len__(self) -> int:
        return len(self.ids)


def predicted_images(session: Session, pair_id: int) -> list[int]:
    """Ids of the pool images this pair has predicted."""
    waiting = pool_query().with_only_columns(Image.id).order_by(None)
    query = select(Prediction.image_id).where(Prediction.pair_id == pair_id, Prediction.image_id.in_(waiting))
    return list(session.scalars(query.order_by(Prediction.image_id)))


def waiting_images(session: Session, pair_id: int) -> WaitingImages:
    """Everything this pair predicted in the pool, read in one statement."""
    waiting = pool_query().with_only_columns(Image.id).order_by(None)
    rows = session.execute(
        select(Image.id, Prediction.id, Image.group, PackedPrediction.count, PackedPrediction.cells)
        .join(Prediction, Prediction.image_id == Image.id)
        .join(PackedPrediction, PackedPrediction.prediction_id == Prediction.id)
        .where(Prediction.pair_id == pair_id, Image.id.in_(waiting))
        .order_by(Image.id)
    ).all()
    numbers = {group: number for number, group in enumerate(sorted({row[2] for row in rows}))}
    return WaitingImages(
        ids=np.array([row[0] for row in rows], dtype=np.int64),
        predictions=np.array([row[1] for row in rows], dtype=np.int64),
        slides=np.array([numbers[row[2]] for row in rows], dtype=np.int64),
        cells=unpack((row[0], row[3], row[4]) for row in rows),
    )


def image_cells(session: Session, pair_id: int, image_id: int) -> PackedCells:
    """What this pair predicted in one image; empty when it has not looked."""
    query = (
        select(Prediction.image_id, PackedPrediction.count, PackedPrediction.cells)
        .join(PackedPrediction, PackedPrediction.prediction_id == Prediction.id)
        .where(Prediction.pair_id == pair_id, Prediction.image_id == image_id)
    )
    return unpack((row[0], row[1], row[2]) for row in session.execute(query))


def reviewed_cells(session: Session) -> NDArray[np.int64]:
    """(K,) int64, sorted: cells whose last state in some cell-by-cell review is an answer, whatever it says."""
    query = (
        select(LabelRevision.cell_id)
        .join(Review, Review.id == LabelRevision.review_id)
        .where(LabelRevision.id.in_(last_revisions()), LabelRevision.action != Action.withdrawn, Review.way == Way.cell)
        .distinct()
    )
    return np.array(sorted(session.scalars(query)), dtype=np.int64)


def called_difficult(session: Session) -> NDArray[np.int64]:
    """(K,) int64, sorted: cells an expert ever called difficult, whatever became of the answer."""
    query = select(LabelRevision.cell_id).where(LabelRevision.label == "difficult").distinct()
    return np.array(sorted(session.scalars(query)), dtype=np.int64)


def answered_cells(session: Session, pair_id: int) -> PackedCells:
    """What was predicted in the train images that an expert or an import has answered whole.

    By this pair, or by the last one with the same `all_cells`: what a cell looks like is told by that model alone.
    """
    pair = session.get_one(ModelPair, pair_id)
    answered = images_with_live_review([ReviewStatus.submitted])
    newest = (
        select(func.max(Prediction.id))
        .join(ModelPair, ModelPair.id == Prediction.pair_id)
        .where(ModelPair.all_cells_id == pair.all_cells_id, Prediction.image_id.in_(answered))
        .group_by(Prediction.image_id)
    )
    rows = session.execute(
        select(Image.id, PackedPrediction.count, PackedPrediction.cells)
        .join(Prediction, Prediction.image_id == Image.id)
        .join(PackedPrediction, PackedPrediction.prediction_id == Prediction.id)
        .where(Prediction.id.in_(newest), Image.split == Split.train)
        .order_by(Image.id)
    )
    return unpack((row[0], row[1], row[2]) for row in rows)
