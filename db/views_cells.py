"""Views of cells: what models saw, what experts said, what is true now and was true then, and a cell's whole life."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Float, Integer, Select, String, and_, func, literal, or_, select, union_all
from sqlalchemy.orm import aliased

from db.models import (
    Action,
    Cell,
    CurrentLabel,
    Image,
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

BOX = ("x1", "y1", "x2", "y2")  # px, xyxy


def _box(of: Any) -> list[Any]:
    return [getattr(of, corner) for corner in BOX]


PREDICTIONS = View(
    "v_predictions",
    "every cell a model pair saw; probabilities are of red blood cell, trophozoite, ring, schizont, gametocyte and "
    "leukocyte, in this order",
    select(
        PredictedCell.id.label("predicted_cell_id"),
        PredictedCell.cell_id,
        Prediction.image_id,
        Prediction.id.label("prediction_id"),
        ModelPair.name.label("pair"),
        ModelPair.all_cells_id.label("all_cells_version"),
        ModelPair.infected_id.label("infected_version"),
        Prediction.created_at.label("predicted_at"),
        PredictedCell.label,
        PredictedCell.score,
        PredictedCell.probabilities,
        PredictedCell.score_all_cells,
        PredictedCell.score_infected,
        PredictedCell.source,
        PredictedCell.pair_iou,
        PredictedCell.disputed,
        *_box(PredictedCell),
    )
    .select_from(PredictedCell)
    .join(Prediction, Prediction.id == PredictedCell.prediction_id)
    .join(ModelPair, ModelPair.id == Prediction.pair_id),
    ("predicted_cell_id",),
)

REVISIONS = View(
    "v_revisions",
    "every answer an expert ever gave about a cell; seconds are those of the review it came with, and pair the one "
    "whose prediction was shown",
    select(
        LabelRevision.id.label("revision_id"),
        LabelRevision.cell_id,
        LabelRevision.image_id,
        Review.expert,
        (Review.expert == IMPORT_EXPERT).label("imported"),
        Review.way,
        LabelRevision.action,
        LabelRevision.label,
        *_box(LabelRevision),
        LabelRevision.shape,
        LabelRevision.predicted_cell_id,
        LabelRevision.predicted_iou,
        ModelPair.name.label("pair"),
        LabelRevision.decided_at,
        LabelRevision.recorded_at,
        Review.lead_time_s.label("seconds"),
        LabelRevision.thread,
        LabelRevision.review_id,
    )
    .select_from(LabelRevision)
    .join(Review, Review.id == LabelRevision.review_id)
    .outerjoin(Prediction, Prediction.id == Review.prediction_id)
    .outerjoin(ModelPair, ModelPair.id == Prediction.pair_id),
    ("revision_id",),
)


def _label_columns() -> list[Any]:
    """What a label says, as the views of labels show it."""
    return [
        LabelRevision.label,
        *_box(LabelRevision),
        LabelRevision.shape,
        LabelRevision.action,
        Review.expert,
        (Review.expert == IMPORT_EXPERT).label("imported"),
        LabelRevision.decided_at,
        LabelRevision.id.label("revision_id"),
    ]


LABELS = View(
    "v_labels",
    "the current label of every cell; label NULL: an expert says there is no cell",
    select(
        CurrentLabel.cell_id,
        Cell.key,
        CurrentLabel.image_id,
        Image.name.label("image"),
        Image.group.label("slide"),
        Image.patient,
        Image.split,
        *_label_columns(),
    )
    .select_from(CurrentLabel)
    .join(LabelRevision, LabelRevision.id == CurrentLabel.revision_id)
    .join(Review, Review.id == LabelRevision.review_id)
    .join(Cell, Cell.id == CurrentLabel.cell_id)
    .join(Image, Image.id == CurrentLabel.image_id),
    ("cell_id",),
)


def revision_as_of(outer: Sequence[Any], cell_id: Any, *, moment: Any = None, until: Any = None) -> Any:
    """The id of the revision that was a cell's current answer: as decided by a moment, or as recorded up to an id.

    The rule of `db/labels.py` for one cell, inside another query that has `outer` in its FROM.
    """
    said, later = aliased(LabelRevision), aliased(LabelRevision)

    def known(revision: Any) -> list[Any]:
        conditions = []
        if moment is not None:
            conditions.append(revision.decided_at <= moment)
        if until is not None:
            conditions.append(revision.id <= until)
        return conditions

    superseded = (
        select(later.id)
        .where(later.cell_id == said.cell_id, later.thread == said.thread, later.id > said.id, *known(later))
        .correlate(said, *outer)
    )
    return (
        select(said.id)
        .where(said.cell_id == cell_id, said.action != Action.withdrawn, *known(said), ~superseded.exists())
        .order_by(said.decided_at.desc(), said.id.desc())
        .limit(1)
        .correlate(*outer)
        .scalar_subquery()
    )


def _spans() -> Select[*tuple[Any, ...]]:
    changes = select(LabelRevision.image_id, LabelRevision.cell_id, LabelRevision.decided_at).distinct().subquery()
    ends = func.lead(changes.c.decided_at).over(
        partition_by=(changes.c.image_id, changes.c.cell_id), order_by=changes.c.decided_at
    )
    spans = select(
        changes.c.image_id,
        changes.c.cell_id,
        changes.c.decided_at.label("valid_from"),
        ends.label("valid_to"),
    ).subquery()
    current = revision_as_of([spans], spans.c.cell_id, moment=spans.c.valid_from)
    return (
        select(
            spans.c.cell_id,
            spans.c.image_id,
            spans.c.valid_from,
            spans.c.valid_to,
            *_label_columns(),
        )
        .select_from(spans)
        .join(LabelRevision, LabelRevision.id == current)
        .join(Review, Review.id == LabelRevision.review_id)
    )


LABELS_AS_OF = View(
    "v_labels_as_of",
    "the label of every cell at every moment: valid_from <= moment AND (valid_to > moment OR valid_to IS NULL); ask "
    "it for some images or cells",
    _spans(),
    ("cell_id", "valid_from"),
)

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
    """Trainings whose images hold the cell, with the label it had for them; none where it had no label by then."""
    used = revision_as_of([Cell, ModelVersion], Cell.id, until=ModelVersion.newest_revision_id)
    return (
        select(
            *events(
                EVENT,
                cell_id=Cell.id,
                image_id=Cell.image_id,
                at=ModelVersion.created_at,
                event=literal("trained", String()),
                version_id=ModelVersion.id,
                label=LabelRevision.label,
                source=ModelVersion.role,
                ref=ModelVersion.id,
            )
        )
        .select_from(Cell)
        .join(TrainingImage, TrainingImage.image_id == Cell.image_id)
        .join(ModelVersion, ModelVersion.id == TrainingImage.version_id)
        .join(LabelRevision, LabelRevision.id == used)
    )


CELL_EVENTS = View(
    "v_cell_events",
    "the life of a cell: predicted, not seen, ranked, queued, suspected, answered, trained; source is the role for "
    "trained; ask it for one cell",
    union_all(_predicted(), _unseen(), _ranked(), _queued(), _suspected(), _answered(), _trained()),
    ("cell_id", "at", "event", "ref"),
)

VIEWS = (PREDICTIONS, REVISIONS, LABELS, LABELS_AS_OF, CELL_EVENTS)
