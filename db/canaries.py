"""How much experts correct a pair, on fields that chance put before them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session, aliased

from db.models import (
    Action,
    CanaryCheck,
    ItemStatus,
    LabelRevision,
    ModelPair,
    Prediction,
    PromotionDecision,
    Review,
    ReviewItem,
    ReviewStatus,
    Slot,
    Way,
)

CORRECTIONS = (Action.relabelled, Action.moved, Action.added, Action.deleted)


@dataclass(frozen=True)
class RandomField:
    """A field that chance put before an expert, with the pair they were shown and how many cells they changed."""

    image_id: int
    pair_id: int
    corrected: int


def random_fields(session: Session, limit: int, pair_id: int | None = None) -> list[RandomField]:
    """The answered fields of the random slots, those answered last first; shown by this pair when given.

    An image counts once, by the annotation that answered it first: later ones are second readings.
    """
    later = aliased(Review)
    drawn = select(ReviewItem.image_id).where(
        ReviewItem.slot == Slot.random, ReviewItem.way == Way.field, ReviewItem.status == ItemStatus.done
    )
    answer = (
        select(func.min(Review.id).label("id"))
        .where(Review.image_id.in_(drawn), Review.way == Way.field, Review.prediction_id.is_not(None))
        .where(Review.sequence == 1, Review.status == ReviewStatus.submitted)
        .group_by(Review.image_id)
        .subquery("answer")
    )
    touched = func.count(case((LabelRevision.action.in_(CORRECTIONS), LabelRevision.cell_id)).distinct())
    query = (
        select(Review.image_id, Prediction.pair_id, touched)
        .join(answer, answer.c.id == Review.id)
        .join(Prediction, Prediction.id == Review.prediction_id)
        .outerjoin(LabelRevision, LabelRevision.thread == Review.thread)
        .where(
            ~select(later.id)
            .where(later.thread == Review.thread, later.status == ReviewStatus.withdrawn)
            .correlate(Review)
            .exists(),
        )
        .group_by(Review.image_id, Prediction.pair_id, Review.id)
        .order_by(Review.id.desc())
        .limit(limit)
    )
    if pair_id is not None:
        query = query.where(Prediction.pair_id == pair_id)
    return [RandomField(image_id, pair, corrected) for image_id, pair, corrected in session.execute(query)]


def add_check(
    session: Session,
    pair_id: int,
    predecessor_id: int,
    *,
    kind: str,
    verdict: str,
    reasons: Sequence[str],
    numbers: dict[str, Any],
) -> CanaryCheck:
    """Append what was found. kind: replayed | live. verdict: passed | watching | refused | rolled_back."""
    row = CanaryCheck(
        pair_id=pair_id,
        predecessor_id=predecessor_id,
        kind=kind,
        verdict=verdict,
        reasons=list(reasons),
        numbers=numbers,
    )
    session.add(row)
    session.flush()
    return row


def newest_check(session: Session, pair_id: int, kind: str) -> CanaryCheck | None:
    """The last check of this kind of this pair."""
    query = select(CanaryCheck).where(CanaryCheck.pair_id == pair_id, CanaryCheck.kind == kind)
    return session.scalar(query.order_by(CanaryCheck.id.desc()).limit(1))


def checks(session: Session) -> Sequence[CanaryCheck]:
    """All checks, oldest first."""
    return session.scalars(select(CanaryCheck).order_by(CanaryCheck.id)).all()


def newest_activation(session: Session) -> PromotionDecision | None:
    """The decision that made the pair what it is now: the last that let any version serve."""
    query = select(PromotionDecision).where(PromotionDecision.promote.is_(True))
    return session.scalar(query.order_by(PromotionDecision.id.desc()).limit(1))


def known_pair(session: Session, all_cells_id: int, infected_id: int) -> ModelPair | None:
    """The pair of these two versions, None where nobody has needed it yet."""
    query = select(ModelPair).where(ModelPair.all_cells_id == all_cells_id, ModelPair.infected_id == infected_id)
    return session.scalar(query)
