"""Views of people's work: who labelled how much and how fast, what became of the pre-annotation, what waits."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Select, case, distinct, func, select
from sqlalchemy.orm import aliased

from db.models import (
    Action,
    Image,
    ItemStatus,
    LabelRevision,
    ModelPair,
    PredictedCell,
    Prediction,
    Ranking,
    Review,
    ReviewItem,
    ReviewStatus,
)
from db.reviews import IMPORT_EXPERT
from db.views import View, one_if, utc_day

# What an expert can do to a cell that was shown, in the order of the columns.
OUTCOMES = (Action.accepted, Action.moved, Action.relabelled, Action.deleted, Action.added)


def _times(action: Action) -> ColumnElement[int]:
    return func.sum(one_if(LabelRevision.action == action)).label(action.value)


def _work() -> Select[*tuple[Any, ...]]:
    """One row per review: looking at it is work even when nothing was said."""
    said = select(func.count()).where(LabelRevision.review_id == Review.id).correlate(Review).scalar_subquery()
    per_review = select(
        Review.expert,
        utc_day(Review.revised_at).label("day"),
        Review.way,
        Review.status,
        Review.lead_time_s,
        Review.image_id,
        said.label("answers"),
        Review.sequence,
    ).where(Review.expert != IMPORT_EXPERT)
    of = per_review.subquery("of")
    submitted = of.c.status == ReviewStatus.submitted
    return select(
        of.c.expert,
        of.c.day,
        of.c.way,
        func.sum(one_if(submitted)).label("submitted"),
        func.sum(one_if(of.c.status == ReviewStatus.skipped)).label("skipped"),
        func.sum(one_if(of.c.status == ReviewStatus.withdrawn)).label("withdrawn"),
        func.sum(one_if(of.c.sequence > 1)).label("edits"),
        func.count(distinct(of.c.image_id)).label("images"),
        func.sum(of.c.answers).label("answers"),
        func.sum(case((submitted, of.c.lead_time_s))).label("seconds"),
    ).group_by(of.c.expert, of.c.day, of.c.way)


EXPERTS = View(
    "v_experts",
    "the work of an expert on a day, in one way",
    _work(),
    ("expert", "day", "way"),
    {"expert": "e-mail address", "seconds": "how long the submitted reviews took; NULL: not known"},
)


def _first_answers() -> Select[*tuple[Any, ...]]:
    """Each annotation's first answer about each cell, where a prediction was shown."""
    earlier = aliased(LabelRevision)
    edited = select(earlier.id).where(
        earlier.cell_id == LabelRevision.cell_id,
        earlier.thread == LabelRevision.thread,
        earlier.id < LabelRevision.id,
    )
    return (
        select(
            ModelPair.id.label("pair_id"),
            ModelPair.name.label("pair"),
            ModelPair.all_cells_id.label("all_cells_version"),
            ModelPair.infected_id.label("infected_version"),
            Review.way,
            func.count(distinct(Review.id)).label("reviews"),
            func.count().label("answers"),
            *[_times(action) for action in OUTCOMES],
        )
        .select_from(LabelRevision)
        .join(Review, Review.id == LabelRevision.review_id)
        .join(Prediction, Prediction.id == Review.prediction_id)
        .join(ModelPair, ModelPair.id == Prediction.pair_id)
        .where(Review.expert != IMPORT_EXPERT, LabelRevision.action.in_(OUTCOMES), ~edited.exists())
        .group_by(ModelPair.id, ModelPair.name, ModelPair.all_cells_id, ModelPair.infected_id, Review.way)
    )


CORRECTIONS = View(
    "v_corrections",
    "what experts did to the pre-annotation of a pair, by the first answer of each annotation about each cell",
    _first_answers(),
    ("pair_id", "way"),
    {"pair": "the pair whose prediction was shown"},
)

LABELS_PER_DAY = View(
    "v_labels_per_day",
    "answers of experts on a day, with one label and one action; without imports and what was withdrawn",
    select(
        utc_day(LabelRevision.decided_at).label("day"),
        LabelRevision.label,
        LabelRevision.action,
        func.count().label("answers"),
    )
    .where(LabelRevision.action.not_in([Action.imported, Action.withdrawn]))
    .group_by(utc_day(LabelRevision.decided_at), LabelRevision.label, LabelRevision.action),
    ("day", "label", "action"),
    {"label": "the class, or difficult; NULL: no cell there"},
)

QUEUE = View(
    "v_queue",
    "a field or a cell that waits for an expert",
    select(
        ReviewItem.id.label("item_id"),
        ReviewItem.score,
        ReviewItem.way,
        ReviewItem.slot,
        ReviewItem.reason,
        ReviewItem.created_at.label("waiting_since"),
        ReviewItem.image_id,
        Image.name.label("image"),
        Image.group.label("slide"),
        Image.patient,
        ReviewItem.cell_id,
        PredictedCell.label.label("predicted"),
        PredictedCell.probabilities,
        ModelPair.name.label("pair"),
        ReviewItem.readers,
        ReviewItem.assigned_to,
        ReviewItem.assigned_until,
        ReviewItem.terms,
    )
    .select_from(ReviewItem)
    .join(Image, Image.id == ReviewItem.image_id)
    .join(Ranking, Ranking.id == ReviewItem.ranking_id)
    .join(ModelPair, ModelPair.id == Ranking.pair_id)
    .outerjoin(PredictedCell, PredictedCell.id == ReviewItem.predicted_cell_id)
    .where(ReviewItem.status == ItemStatus.pending),
    ("item_id",),
    {
        "score": "what a look is worth per second of the expert's time; the highest comes first",
        "cell_id": "the cell; NULL: the whole field waits",
        "pair": "the pair by whose predictions it was ranked",
        "probabilities": "of red blood cell, trophozoite, ring, schizont, gametocyte and leukocyte; NULL for a field",
    },
)

VIEWS = (EXPERTS, CORRECTIONS, LABELS_PER_DAY, QUEUE)
