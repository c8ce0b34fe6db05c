"""The view of a cell's whole life, as one list of events."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Float, Integer, Select, String, and_, func, literal, or_, select, union_all
from sqlalchemy.orm import aliased

from db.models import (
    Cell,
    Json,
    LabelRevision,
    ModelPair,
    ModelVersion,
    PredictedCell,
    Prediction,
    RankedCell,
    Ranking,
    Review,
    ReviewItem,
    Suspicion,
    TrainingImage,
    UtcDateTime,
    Way,
)
from db.reviews import IMPORT_EXPERT
from db.views import View, events
from db.views_cells import revision_as_of

EVENT = {
    "cell_id": Integer(),
    "image_id": Integer(),
    "at": UtcDateTime(),
    "event": String(),
    "pair": String(),
    "version_id": Integer(),
    "label": String(),
    "score": Float(),
    "probabilities": Json,
    "source": String(),
    "expert": String(),
    "action": String(),
    "reading": Integer(),
    "seconds": Float(),
    "way": String(),
    "slot": String(),
    "reason": String(),
    "ref": Integer(),
}


def _predicted() -> Select[*tuple[Any, ...]]:
    return (
        select(
            *events(
                EVENT,
                cell_id=PredictedCell.cell_id,
                image_id=Prediction.image_id,
                at=Prediction.created_at,
                event=literal("predicted", String()),
                pair=ModelPair.name,
                label=PredictedCell.label,
                score=PredictedCell.score,
                probabilities=PredictedCell.probabilities,
                source=PredictedCell.source,
                ref=PredictedCell.id,
            )
        )
        .select_from(PredictedCell)
        .join(Prediction, Prediction.id == PredictedCell.prediction_id)
        .join(ModelPair, ModelPair.id == Prediction.pair_id)
    )


def _unseen() -> Select[*tuple[Any, ...]]:
    """Predictions of its image that came after the cell was known and have no cell there."""
    seen = select(PredictedCell.id).where(
        PredictedCell.prediction_id == Prediction.id, PredictedCell.cell_id == Cell.id
    )
    return (
        select(
            *events(
                EVENT,
                cell_id=Cell.id,
                image_id=Cell.image_id,
                at=Prediction.created_at,
                event=literal("not seen", String()),
                pair=ModelPair.name,
                ref=Prediction.id,
            )
        )
        .select_from(Cell)
        .join(Prediction, Prediction.image_id == Cell.image_id)
        .join(ModelPair, ModelPair.id == Prediction.pair_id)
        .where(Prediction.created_at > Cell.created_at, ~seen.exists())
    )


def _ranked() -> Select[*tuple[Any, ...]]:
    return (
        select(
            *events(
                EVENT,
                cell_id=PredictedCell.cell_id,
                image_id=Cell.image_id,
                at=Ranking.created_at,
                event=literal("ranked", String()),
                score=RankedCell.score,
                reason=RankedCell.reason,
                ref=RankedCell.id,
            )
        )
        .select_from(RankedCell)
        .join(PredictedCell, PredictedCell.id == RankedCell.predicted_cell_id)
        .join(Cell, Cell.id == PredictedCell.cell_id)
        .join(Ranking, Ranking.id == RankedCell.ranking_id)
    )


def _queued() -> Select[*tuple[Any, ...]]:
    """In the queue by itself, or with its whole field."""
    by_itself = and_(ReviewItem.way == Way.cell, ReviewItem.cell_id == Cell.id)
    with_field = and_(ReviewItem.way == Way.field, ReviewItem.image_id == Cell.image_id)
    return (
        select(
            *events(
                EVENT,
                cell_id=Cell.id,
                image_id=Cell.image_id,
                at=ReviewItem.created_at,
                event=literal("queued", String()),
                score=ReviewItem.score,
                expert=ReviewItem.assigned_to,
                way=ReviewItem.way,
                slot=ReviewItem.slot,
                reason=ReviewItem.reason,
                ref=ReviewItem.id,
            )
        )
        .select_from(Cell)
        .join(ReviewItem, and_(ReviewItem.image_id == Cell.image_id, or_(by_itself, with_field)))
    )


def _suspected() -> Select[*tuple[Any, ...]]:
    return (
        select(
            *events(
                EVENT,
                cell_id=Suspicion.cell_id,
                image_id=Suspicion.image_id,
                at=Suspicion.created_at,
                event=literal("suspected", String()),
                pair=ModelPair.name,
                score=Suspicion.score,
                reason=Suspicion.reason,
                ref=Suspicion.id,
            )
        )
        .select_from(Suspicion)
        .join(ModelPair, ModelPair.id == Suspicion.pair_id)
    )


def _answered() -> Select[*tuple[Any, ...]]:
    """reading: 1 for the first expert who spoke of the cell, 2 for a second reading. Imports are nobody's."""
    earlier, reader = aliased(LabelRevision), aliased(Review)
    others = (
        select(func.count(reader.expert.distinct()))
        .select_from(earlier)
        .join(reader, reader.id == earlier.review_id)
        .where(
            earlier.cell_id == LabelRevision.cell_id,
            earlier.id < LabelRevision.id,
            reader.expert != Review.expert,
            reader.expert != IMPORT_EXPERT,
        )
        .correlate(LabelRevision, Review)
        .scalar_subquery()
    )
    return (
        select(
            *events(
                EVENT,
                cell_id=LabelRevision.cell_id,
                image_id=LabelRevision.image_id,
                at=LabelRevision.decided_at,
                event=literal("answered", String()),
                label=LabelRevision.label,
                expert=Review.expert,
                action=LabelRevision.action,
                reading=others + 1,
                seconds=Review.lead_time_s,
                way=Review.way,
                ref=LabelRevision.id,
            )
        )
        .select_from(LabelRevision)
        .join(Review, Review.id == LabelRevision.review_id)
    )


def _trained() -> Select[*tuple[Any, ...]]:
    """Trainings whose images hold the cell, with the label it had for them; none where it had no label by then.

    What is the current answer is asked once per answer, not once per training: there may be hundreds of these.
    """
    following = func.lead(LabelRevision.id, type_=Integer()).over(
        partition_by=LabelRevision.cell_id, order_by=LabelRevision.id
    )
    known = revision_as_of([LabelRevision], LabelRevision.cell_id, until=LabelRevision.id)
    spans = select(
        LabelRevision.cell_id,
        LabelRevision.image_id,
        LabelRevision.id.label("known_from"),
        following.label("known_to"),
        known.label("revision_id"),
    ).subquery("spans")
    used = aliased(LabelRevision)
    return (
        select(
            *events(
                EVENT,
                cell_id=spans.c.cell_id,
                image_id=spans.c.image_id,
                at=ModelVersion.created_at,
                event=literal("trained", String()),
                version_id=ModelVersion.id,
                label=used.label,
                source=ModelVersion.role,
                ref=ModelVersion.id,
            )
        )
        .select_from(spans)
        .join(used, used.id == spans.c.revision_id)
        .join(TrainingImage, TrainingImage.image_id == spans.c.image_id)
        .join(
            ModelVersion,
            and_(
                ModelVersion.id == TrainingImage.version_id,
                ModelVersion.newest_revision_id >= spans.c.known_from,
                or_(ModelVersion.newest_revision_id < spans.c.known_to, spans.c.known_to.is_(None)),
            ),
        )
    )


CELL_EVENTS = View(
    "v_cell_events",
    "something that happened to a cell. Ask it by cell_id",
    union_all(_predicted(), _unseen(), _ranked(), _queued(), _suspected(), _answered(), _trained()),
    ("cell_id", "at", "event", "ref"),
    {
        "event": "predicted, not seen (by a later pair), ranked, queued, suspected, answered or trained",
        "pair": "the pair that predicted, did not see, or suspects; else NULL",
        "version_id": "trained: the version; else NULL",
        "label": "predicted: what the pair says; answered: what the expert says; trained: what the version learned",
        "score": "predicted: probability of the label; ranked, queued: what a look is worth; suspected: from 0 to 1",
        "source": "predicted: which versions saw it (both, all_cells or infected); trained: the version's role",
        "expert": "answered: who; queued: in whose hands it is; else NULL",
        "seconds": "answered: how long the whole review took; else NULL",
        "slot": "queued: acquisition, random or second_reading; else NULL",
        "reason": "ranked, queued, suspected: why, in words",
    },
)

VIEWS = (CELL_EVENTS,)
