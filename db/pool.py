"""The pool as a ranking reads it: all predicted cells of one pair in the images that wait, as rows of one statement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, case, select
from sqlalchemy.orm import Session

from db.images import pool_query
from db.models import Image, LabelRevision, PredictedCell, Prediction


def predicted_images(session: Session, pair_id: int) -> list[int]:
    """Ids of the pool images this pair has predicted, those without a single cell included."""
    waiting = pool_query().with_only_columns(Image.id).order_by(None)
    query = select(Prediction.image_id).where(Prediction.pair_id == pair_id, Prediction.image_id.in_(waiting))
    return list(session.scalars(query.order_by(Prediction.image_id)))


def pool_cells(session: Session, pair_id: int) -> Sequence[Row[Any]]:
    """Every cell this pair predicted in the pool: id, image_id, probabilities, score_all_cells, score_infected,
    pair_iou, disputed, and `difficult`: 1 where an expert ever called this cell so, whatever became of the answer.
    """
    waiting = pool_query().with_only_columns(Image.id).order_by(None)
    called = select(LabelRevision.cell_id).where(LabelRevision.label == "difficult")
    query = (
        select(
            PredictedCell.id,
            Prediction.image_id,
            PredictedCell.probabilities,
            PredictedCell.score_all_cells,
            PredictedCell.score_infected,
            PredictedCell.pair_iou,
            PredictedCell.disputed,
            case((PredictedCell.cell_id.in_(called), 1), else_=0).label("difficult"),
        )
        .join(Prediction, Prediction.id == PredictedCell.prediction_id)
        .where(Prediction.pair_id == pair_id, Prediction.image_id.in_(waiting))
        .order_by(PredictedCell.id)
    )
    return session.execute(query).all()
