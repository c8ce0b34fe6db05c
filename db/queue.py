"""The review queue: rankings, their cells, and the images that wait for an expert."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from db.errors import IllegalTransition
from db.models import (
    ITEM_TRANSITIONS,
    ItemStatus,
    PredictedCell,
    RankedCell,
    Ranking,
    ReviewItem,
    now,
)


@dataclass(frozen=True)
class CellRank:
    """One cell's score in a ranking, every term of it, and the reason in words (cut at 255 characters)."""

    predicted_cell_id: int
    score: float
    terms: dict[str, Any]
    reason: str


@dataclass(frozen=True)
class QueueEntry:
    """One image's place in the queue: the highest score first, with everything it is made of."""

    image_id: int
    score: float
    terms: dict[str, Any]


def add_ranking(session: Session, pair_id: int, config: dict[str, Any]) -> Ranking:
    """Record one ordering of the pool by this pair."""
    ranking = Ranking(pair_id=pair_id, config=config)
    session.add(ranking)
    session.flush()
    return ranking


def latest_ranking(session: Session) -> Ranking | None:
    """The newest ranking."""
    return session.scalar(select(Ranking).order_by(Ranking.id.desc()).limit(1))


def add_ranked_cells(session: Session, ranking_id: int, rows: Iterable[CellRank]) -> int:
    """Store the cells of a ranking; how many."""
    values = [
        {
            "ranking_id": ranking_id,
            "predicted_cell_id": row.predicted_cell_id,
            "score": float(row.score),
            "terms": row.terms,
            "reason": row.reason if len(row.reason) <= 255 else row.reason[:254] + "…",
        }
        for row in rows
    ]
    if values:
        session.execute(insert(RankedCell), values)
    return len(values)


def replace_queue(session: Session, ranking_id: int, items: Iterable[QueueEntry]) -> list[ReviewItem]:
    """Let this ranking's images wait instead of those that waited so far."""
    for item in _pending(session):
        _set_status(item, ItemStatus.superseded)
    session.flush()  # before the new ones: an image waits at most once
    fresh = [
        ReviewItem(ranking_id=ranking_id, image_id=item.image_id, score=float(item.score), terms=item.terms)
        for item in items
    ]
    session.add_all(fresh)
    session.flush()
    return fresh


def _pending(session: Session) -> Sequence[ReviewItem]:
    query = select(ReviewItem).where(ReviewItem.status == ItemStatus.pending)
    query = query.order_by(ReviewItem.score.desc(), ReviewItem.image_id)
    return session.scalars(query.with_for_update(key_share=True)).all()


def pending(session: Session) -> Sequence[ReviewItem]:
    """Images that wait for an expert, the most valuable first."""
    query = select(ReviewItem).where(ReviewItem.status == ItemStatus.pending)
    return session.scalars(query.order_by(ReviewItem.score.desc(), ReviewItem.image_id)).all()


def _set_status(item: ReviewItem, status: ItemStatus) -> None:
    if status not in ITEM_TRANSITIONS[item.status]:
        raise IllegalTransition(f"review item {item.id} is {item.status.value}: it cannot become {status.value}")
    item.status = status
    item.closed_at = now()


def close(session: Session, image_id: int, status: ItemStatus | str) -> ReviewItem | None:
    """An expert has answered (done) or skipped this image; None when it was not waiting."""
    query = select(ReviewItem).where(ReviewItem.image_id == image_id, ReviewItem.status == ItemStatus.pending)
    item = session.scalar(query.with_for_update(key_share=True))
    if item is not None:
        _set_status(item, ItemStatus(status))
        session.flush()
    return item


def reasons(session: Session, prediction_id: int) -> dict[int, tuple[float, str]]:
    """Cell id -> (score, reason) of a prediction's cells, in the newest ranking that saw them; empty before any."""
    cells = select(PredictedCell.id).where(PredictedCell.prediction_id == prediction_id)
    newest = select(func.max(RankedCell.ranking_id)).where(RankedCell.predicted_cell_id.in_(cells))
    query = (
        select(PredictedCell.cell_id, RankedCell.score, RankedCell.reason)
        .join(RankedCell, RankedCell.predicted_cell_id == PredictedCell.id)
        .where(PredictedCell.prediction_id == prediction_id)
        .where(RankedCell.ranking_id == newest.scalar_subquery())
    )
    return {cell_id: (score, reason) for cell_id, score, reason in session.execute(query)}


def ranked_cells(session: Session, ranking_id: int) -> Sequence[RankedCell]:
    """All cells of a ranking, the most valuable first."""
    query = select(RankedCell).where(RankedCell.ranking_id == ranking_id)
    return session.scalars(query.order_by(RankedCell.score.desc(), RankedCell.id)).all()
