"""Views of cells: what models saw, what experts said, what is true now and was true then."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.orm import aliased

from db.models import (
    Action,
    Cell,
    CurrentLabel,
    Image,
    LabelRevision,
    ModelPair,
    PredictedCell,
    Prediction,
    Review,
)
from db.reviews import IMPORT_EXPERT
from db.views import View

BOX = ("x1", "y1", "x2", "y2")  # px, xyxy
NO_CELL = "the class, or difficult; NULL: an expert says there is no cell"


def _box(of: Any) -> list[Any]:
    return [getattr(of, corner) for corner in BOX]


PREDICTIONS = View(
    "v_predictions",
    "a cell that a model pair saw",
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
    {
        "label": "infected or not, and then the most probable class of these",
        "score": "probability of the label, from 0 to 1",
        "source": "which versions saw it: both, all_cells or infected",
    },
)

REVISIONS = View(
    "v_revisions",
    "an answer that an expert gave about a cell",
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
    {
        "predicted_cell_id": "the predicted cell that was shown; NULL: none was, as where a cell was added",
        "pair": "the pair whose prediction was shown; NULL: none was",
        "seconds": "how long the whole review took that it came with; NULL: not known",
    },
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


def _place_columns(of: Any) -> list[Any]:
    """Where a label is, as the views of labels show it. of: what the query begins with, so that filters reach it."""
    return [
        of.cell_id,
        Cell.key,
        of.image_id,
        Image.name.label("image"),
        Image.group.label("slide"),
        Image.patient,
        Image.split,
    ]


LABELS = View(
    "v_labels",
    "the current label of a cell; none of a cell nobody has spoken of",
    select(*_place_columns(CurrentLabel), *_label_columns())
    .select_from(CurrentLabel)
    .join(LabelRevision, LabelRevision.id == CurrentLabel.revision_id)
    .join(Review, Review.id == LabelRevision.review_id)
    .join(Cell, Cell.id == CurrentLabel.cell_id)
    .join(Image, Image.id == CurrentLabel.image_id),
    ("cell_id",),
    {"label": NO_CELL},
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
    """One row per moment at which somebody decided about a cell, by subqueries alone.

    Windows would be computed for all cells before a filter by slide or patient could reach them.
    """
    change, same, following = aliased(LabelRevision), aliased(LabelRevision), aliased(LabelRevision)
    counted = select(same.id).where(
        same.cell_id == change.cell_id, same.decided_at == change.decided_at, same.id < change.id
    )
    ends = (
        select(func.min(following.decided_at))
        .where(following.cell_id == change.cell_id, following.decided_at > change.decided_at)
        .correlate(change)
        .scalar_subquery()
    )
    current = revision_as_of([change], change.cell_id, moment=change.decided_at)
    return (
        select(
            *_place_columns(change), *_label_columns(), change.decided_at.label("valid_from"), ends.label("valid_to")
        )
        .select_from(change)
        .join(LabelRevision, LabelRevision.id == current)
        .join(Review, Review.id == LabelRevision.review_id)
        .join(Cell, Cell.id == change.cell_id)
        .join(Image, Image.id == change.image_id)
        .where(~counted.correlate(change).exists())
    )


LABELS_AS_OF = View(
    "v_labels_as_of",
    "a span in which a cell had one label; those of a moment: valid_from <= moment AND (valid_to > moment OR valid_to "
    "IS NULL). Ask it by image_id or cell_id",
    _spans(),
    ("cell_id", "valid_from"),
    {"label": NO_CELL},
)

VIEWS = (PREDICTIONS, REVISIONS, LABELS, LABELS_AS_OF)
