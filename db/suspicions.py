"""Labels that may be wrong or missing: what is found about them, and what they are found by."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, insert, null, select
from sqlalchemy.orm import Session

from db.images import images_with_live_review
from db.labels import current_revisions
from db.models import Image, LabelRevision, ModelPair, PredictedCell, Prediction, ReviewStatus, Split, Suspicion


@dataclass(frozen=True)
class SuspicionRow:
    """One label in doubt; revision_id None: there is none where a cell was overlooked."""

    pair_id: int
    cell_id: int
    image_id: int
    revision_id: int | None
    predicted_cell_id: int | None
    kind: str
    score: float
    reason: str


def labelled_predictions(session: Session) -> list[tuple[Prediction, Image, ModelPair]]:
    """Every prediction of a train image that an expert or an import has labelled whole, newest first."""
    labelled = images_with_live_review([ReviewStatus.submitted])
    query = (
        select(Prediction, Image, ModelPair)
        .join(Image, Image.id == Prediction.image_id)
        .join(ModelPair, ModelPair.id == Prediction.pair_id)
        .where(Image.split == Split.train, Image.id.in_(labelled))
        .order_by(Prediction.id.desc())
    )
    return [(prediction, image, pair) for prediction, image, pair in session.execute(query)]


def seen_cells(session: Session, prediction_id: int) -> Sequence[Row[Any]]:
    """The cells of a prediction without their masks, in the order they were stored."""
    names = (
        *("id", "cell_id", "x1", "y1", "x2", "y2", "label", "score", "probabilities"),
        *("score_all_cells", "score_infected", "source", "pair_iou", "disputed"),
    )
    query = select(*(getattr(PredictedCell, name) for name in names))
    return session.execute(query.where(PredictedCell.prediction_id == prediction_id).order_by(PredictedCell.id)).all()


def add_suspicions(session: Session, rows: Iterable[SuspicionRow]) -> int:
    """Append what is not known yet; how many. A cell is suspected once by each pair and kind."""
    stored = session.execute(select(Suspicion.cell_id, Suspicion.pair_id, Suspicion.kind))
    known = {(cell, pair, kind) for cell, pair, kind in stored}
    fresh = {(row.cell_id, row.pair_id, row.kind): row for row in rows}
    values = [vars(row) | {"reason": row.reason[:255]} for key, row in sorted(fresh.items()) if key not in known]
    if values:
        session.execute(insert(Suspicion), values)
    return len(values)


def open_suspicions(session: Session, among: Sequence[int] | None = None, most: int = 2000) -> list[tuple[Any, ...]]:
    """(suspicion, current label or None) of every label of the train split that is still in doubt, strongest first.

    A label is in doubt while it is the current one; an overlooked cell while nobody has said anything about it.
    """
    current = current_revisions(among).subquery("current")
    said = select(LabelRevision.cell_id).join(current, current.c.id == LabelRevision.id)
    labelled = (
        select(Suspicion, LabelRevision.label)
        .join(LabelRevision, LabelRevision.id == Suspicion.revision_id)
        .join(current, current.c.id == LabelRevision.id)
    )
    overlooked = select(Suspicion, null()).where(Suspicion.revision_id.is_(None), Suspicion.cell_id.not_in(said))
    train = select(Image.id).where(Image.split == Split.train)
    found: list[tuple[Any, ...]] = []
    for query in (labelled, overlooked):
        query = query.where(Suspicion.image_id.in_(train))
        if among is not None:
            query = query.where(Suspicion.cell_id.in_(among))
        query = query.order_by(Suspicion.score.desc(), Suspicion.id).limit(most)
        found += [(suspicion, label) for suspicion, label in session.execute(query)]
    return sorted(found, key=lambda pair: (-pair[0].score, pair[0].id))
