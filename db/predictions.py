"""Predictions: what a model pair saw in an image, and who asked for one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from db.cells import Box, resolve_cells
from db.errors import NotFound, RecordError
from db.images import get, lock, pool_query
from db.models import Cell, Image, ModelPair, PackedPrediction, PredictedCell, Prediction, PredictionRequest
from db.packed import EMBEDDING, pack


@dataclass(frozen=True)
class CellRow:
    """One fused cell as it is stored. Scores of a model that saw nothing are None (NaN is taken for None)."""

    key: str | None  # None: found by its place
    box: Box  # xyxy px
    label: str
    score: float
    probabilities: Sequence[float]  # in the order of backend.instances.CLASSES
    score_all_cells: float | None
    score_infected: float | None
    source: str  # both | all_cells | infected
    pair_iou: float | None
    disputed: bool
    mask: bytes | None  # COCO RLE counts of the whole image
    code: int = 0  # the kind of cell it looks like (`backend/embed.py`)
    embedding: NDArray[np.float32] | None = None  # (D,) unit length; all cells of a prediction have one, or none


def _number(value: float | None) -> float | None:
    """A plain float, or None for "not seen", which arrays write as NaN and PostgreSQL's JSON cannot hold."""
    return None if value is None or math.isnan(value) else float(value)


def add_prediction(
    session: Session, image_id: int, pair_id: int, cells: Sequence[CellRow], seconds: float
) -> Prediction:
    """Store what this pair saw. Once per (pair, image): a second call returns the first prediction.

    Each row gets the identity of a known cell of the image (one to one, IoU >= 0.5) or a new one, so a label and
    a region id survive every new model.
    """
    get(session, image_id)
    lock(session, image_id)
    known = get_prediction(session, image_id, pair_id)
    if known is not None:
        return known
    prediction = Prediction(image_id=image_id, pair_id=pair_id, seconds=float(seconds))
    session.add(prediction)
    boxes = [(float(x1), float(y1), float(x2), float(y2)) for x1, y1, x2, y2 in (row.box for row in cells)]
    identities = resolve_cells(session, image_id, boxes, [row.key for row in cells])
    stored = [
        PredictedCell(
            prediction_id=prediction.id,
            cell_id=cell.id,
            x1=box[0],
            y1=box[1],
            x2=box[2],
            y2=box[3],
            label=row.label,
            score=float(row.score),
            probabilities=[float(value) for value in row.probabilities],
            score_all_cells=_number(row.score_all_cells),
            score_infected=_number(row.score_infected),
            source=row.source,
            pair_iou=_number(row.pair_iou),
            disputed=bool(row.disputed),
            mask=row.mask,
        )
        for row, box, cell in zip(cells, boxes, identities, strict=True)
    ]
    session.add_all(stored)
    session.flush()
    session.add(
        PackedPrediction(
            prediction_id=prediction.id,
            count=len(stored),
            cells=pack(stored, [row.code for row in cells]),
            embeddings=_embeddings(cells),
        )
    )
    session.flush()
    return prediction


def _embeddings(cells: Sequence[CellRow]) -> bytes | None:
    known = [row.embedding for row in cells if row.embedding is not None]
    if not known:
        return None
    if len(known) != len(cells):
        raise RecordError(f"expected an embedding for each of {len(cells)} cells or for none, got {len(known)}")
    return np.stack(known).astype(EMBEDDING).tobytes()


def get_prediction(session: Session, image_id: int, pair_id: int) -> Prediction | None:
    """What this pair saw in this image, if it has looked."""
    query = select(Prediction).where(Prediction.image_id == image_id, Prediction.pair_id == pair_id)
    return session.scalar(query)


def by_id(session: Session, prediction_id: int) -> Prediction:
    """The prediction with this id. Raises NotFound."""
    prediction = session.get(Prediction, prediction_id)
    if prediction is None:
        raise NotFound(f"expected a prediction with id {prediction_id}, found none")
    return prediction


def newest_prediction(session: Session, image_id: int) -> Prediction | None:
    """The newest prediction of this image by any pair."""
    query = select(Prediction).where(Prediction.image_id == image_id).order_by(Prediction.id.desc()).limit(1)
    return session.scalar(query)


def of_image(session: Session, image_id: int, most: int = 20) -> list[tuple[Prediction, ModelPair]]:
    """The newest predictions of this image with the pairs that made them, newest first."""
    query = select(Prediction, ModelPair).join(ModelPair, ModelPair.id == Prediction.pair_id)
    query = query.where(Prediction.image_id == image_id).order_by(Prediction.id.desc()).limit(most)
    return [(prediction, pair) for prediction, pair in session.execute(query)]


def by_pair(session: Session, pair_id: int) -> dict[int, Prediction]:
    """Everything this pair has predicted: image id -> prediction."""
    rows = session.scalars(select(Prediction).where(Prediction.pair_id == pair_id))
    return {prediction.image_id: prediction for prediction in rows}


def predicted_cells(session: Session, prediction_id: int) -> list[tuple[PredictedCell, str]]:
    """The cells of a prediction with their keys, in the order they were stored."""
    query = (
        select(PredictedCell, Cell.key)
        .join(Cell, Cell.id == PredictedCell.cell_id)
        .where(PredictedCell.prediction_id == prediction_id)
        .order_by(PredictedCell.id)
    )
    return [(cell, key) for cell, key in session.execute(query)]


def missing(session: Session, pair_id: int) -> list[Image]:
    """Pool images this pair has not predicted, those somebody asked for first."""
    done = select(Prediction.image_id).where(Prediction.pair_id == pair_id)
    asked = select(PredictionRequest.image_id)
    query = pool_query().where(Image.id.not_in(done)).order_by(None).order_by(Image.id.in_(asked).desc(), Image.id)
    return list(session.scalars(query))


def request(session: Session, image_id: int) -> bool:
    """Ask for this image to be predicted soon; whether that is news."""
    lock(session, image_id)
    if session.get(PredictionRequest, image_id) is not None:
        return False
    session.add(PredictionRequest(image_id=image_id))
    session.flush()
    return True


def requests(session: Session) -> Sequence[Image]:
    """Images that wait for a prediction somebody asked for, oldest request first."""
    query = (
        select(Image)
        .join(PredictionRequest, PredictionRequest.image_id == Image.id)
        .order_by(PredictionRequest.created_at, Image.id)
    )
    return session.scalars(query).all()


def fulfil(session: Session, image_id: int) -> None:
    """Take an image's request off the queue, if there is one."""
    asked = session.get(PredictionRequest, image_id)
    if asked is not None:
        session.delete(asked)
        session.flush()
