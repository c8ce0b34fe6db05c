"""How much of an image is labelled: every cell of its field, or only those that experts were asked about one by one.

Both as of a label revision, so that a training finds the same images again, whatever came while it ran.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import Select, func, or_, select
from sqlalchemy.orm import Session

from db.cells import Box
from db.chunks import chunks
from db.models import ForgottenImage, Image, LabelRevision, PredictedCell, Prediction, Review, ReviewStatus, Split, Way

# From its tombstone on, an image teaches nobody, also while its rows are still being removed.
_KEPT = Image.id.not_in(select(ForgottenImage.image_id))


@dataclass(frozen=True)
class Place:
    """Where a model saw a cell. box: xyxy px."""

    cell_id: int
    box: Box


def _last_states(way: Way, until: int) -> Select[int]:
    """Ids of the last state of every annotation as it was when revision `until` was the newest.

    Later states are those that came with the next revision or after it.
    """
    later = select(func.min(LabelRevision.review_id)).where(LabelRevision.id > until).scalar_subquery()
    known = or_(later.is_(None), Review.id < later)
    return select(func.max(Review.id)).where(Review.way == way, known).group_by(Review.thread)


def _complete(until: int) -> Select[int]:
    """Ids of images with a live submitted annotation of the whole field by then.

    One that never said anything about any cell counts: its field is empty.
    """
    return select(Review.image_id).where(
        Review.id.in_(_last_states(Way.field, until)), Review.status == ReviewStatus.submitted
    )


def complete_images(session: Session, split: Split, until: int) -> Sequence[Image]:
    """Images all of whose cells were labelled by revision `until` (an import counts as a review), oldest first."""
    query = select(Image).where(Image.split == split, Image.id.in_(_complete(until)), _KEPT)
    return session.scalars(query.order_by(Image.id)).all()


def partial_images(session: Session, split: Split, until: int) -> Sequence[Image]:
    """Images with live reviews of single cells by revision `until`, whose field nobody had labelled, oldest first.

    What was said of their cells by then is for `db.labels.current_labels`; it may be nothing.
    """
    reviewed = select(Review.image_id).where(
        Review.id.in_(_last_states(Way.cell, until)), Review.status == ReviewStatus.submitted
    )
    query = select(Image).where(Image.split == split, Image.id.in_(reviewed), Image.id.not_in(_complete(until)), _KEPT)
    return session.scalars(query.order_by(Image.id)).all()


def predicted_places(session: Session, image_ids: Collection[int], until: int) -> dict[int, list[Place]]:
    """What the newest prediction of each image shows that was stored when revision `until` was recorded.

    Images that were not predicted by then are absent.
    """
    moment = session.scalar(select(LabelRevision.recorded_at).where(LabelRevision.id <= until).order_by(
        LabelRevision.id.desc()).limit(1))  # fmt: skip
    found: dict[int, list[Place]] = {}
    for chunk in chunks(image_ids if moment is not None else ()):
        newest = (
            select(func.max(Prediction.id))
            .where(Prediction.image_id.in_(chunk), Prediction.created_at <= moment)
            .group_by(Prediction.image_id)
        )
        rows = session.execute(
            select(
                Prediction.image_id,
                PredictedCell.cell_id,
                PredictedCell.x1,
                PredictedCell.y1,
                PredictedCell.x2,
                PredictedCell.y2,
            )
            .outerjoin(PredictedCell, PredictedCell.prediction_id == Prediction.id)
            .where(Prediction.id.in_(newest))
            .order_by(Prediction.image_id, PredictedCell.id)
        )
        for image_id, cell_id, x1, y1, x2, y2 in rows:
            places = found.setdefault(image_id, [])
            if cell_id is not None:  # else it shows nothing
                places.append(Place(cell_id, (x1, y1, x2, y2)))
    return found
