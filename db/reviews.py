"""Reviews: every state of every annotation, exactly as it came."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.orm import Session, defer

from db.chunks import chunks
from db.images import lock
from db.models import Image, PackedPrediction, Review, ReviewStatus, Split, Way

IMPORT_EXPERT = "import"  # the "expert" of labels that came with a data set
IMPORT_THREAD = "import:"  # thread of such labels: import:<image sha256>


def annotation_thread(ls_project_id: int, ls_annotation_id: int) -> str:
    """The thread of a Label Studio annotation."""
    return f"ls:{ls_project_id}:{ls_annotation_id}"


def import_thread(sha256: str) -> str:
    """The thread of the labels an image was imported with."""
    return f"{IMPORT_THREAD}{sha256}"


def content_sha256(content: Sequence[Any]) -> str:
    """The sha256 of a result, the same whatever the order of keys in its objects."""
    canonical = json.dumps(list(content), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def latest_review(session: Session, thread: str) -> Review | None:
    """The last state of an annotation."""
    query = select(Review).where(Review.thread == thread).order_by(Review.sequence.desc()).limit(1)
    return session.scalar(query)


def after(last: Review | None) -> int:
    """The number of the state that follows this one; 1 for an annotation's first."""
    return 1 if last is None else last.sequence + 1


def newest_review_id(session: Session) -> int:
    """Id of the last recorded state of any annotation, 0 when there is none."""
    return session.scalar(select(func.max(Review.id))) or 0


def add_review(
    session: Session,
    *,
    thread: str,
    image_id: int,
    status: ReviewStatus | str,
    expert: str,
    revised_at: datetime,
    content: Sequence[Any],
    lead_time_s: float | None = None,
    ls_project_id: int | None = None,
    ls_task_id: int | None = None,
    ls_annotation_id: int | None = None,
    prediction_id: int | None = None,
    way: Way = Way.field,
    sequence: int | None = None,
) -> Review:
    """Append the next state of an annotation. The caller compares with `latest_review` before it does.

    sequence: `after` that one, by whoever has locked the image since before that look.
    """
    if sequence is None:
        lock(session, image_id)
        sequence = after(latest_review(session, thread))
    review = Review(
        thread=thread,
        sequence=sequence,
        image_id=image_id,
        way=way,
        status=ReviewStatus(status),
        expert=expert,
        revised_at=revised_at,
        lead_time_s=lead_time_s,
        ls_project_id=ls_project_id,
        ls_task_id=ls_task_id,
        ls_annotation_id=ls_annotation_id,
        prediction_id=prediction_id,
        content=list(content),
        content_sha256=content_sha256(content),
    )
    session.add(review)
    session.flush()
    return review


def _last_states(*conditions: ColumnElement[bool]) -> Select[Review]:
    """Last states of threads. conditions: the same for all states of a thread, so that only those are looked at."""
    last = select(func.max(Review.id)).where(*conditions).group_by(Review.thread)
    return select(Review).where(Review.id.in_(last)).order_by(Review.id)


def live_threads(session: Session, ls_project_id: int | None = None) -> dict[str, Review]:
    """The last state of every thread that is not withdrawn; of one Label Studio project when given."""
    query = _last_states().where(Review.status != ReviewStatus.withdrawn)
    if ls_project_id is not None:
        query = query.where(Review.ls_project_id == ls_project_id)
    return {review.thread: review for review in session.scalars(query)}


def live_reviews(session: Session, image_id: int) -> Sequence[Review]:
    """The last state of every thread of an image that is not withdrawn, oldest first."""
    query = _last_states(Review.image_id == image_id).where(Review.status != ReviewStatus.withdrawn)
    return session.scalars(query).all()


def live_of_tasks(session: Session, ls_project_id: int, ls_task_ids: Collection[int]) -> Sequence[Review]:
    """The last state of every thread of these Label Studio tasks that is not withdrawn, oldest first.

    A sync asks for the tasks of the last minute again and again: their content, which is long, is read when used.
    """
    found: list[Review] = []
    for chunk in chunks(ls_task_ids):
        of_tasks = (Review.ls_project_id == ls_project_id, Review.ls_task_id.in_(chunk))
        live = _last_states(*of_tasks).where(Review.status != ReviewStatus.withdrawn)
        found += session.scalars(live.options(defer(Review.content)))
    return sorted(found, key=lambda review: review.id)


def history(session: Session, thread: str) -> Sequence[Review]:
    """Every state of an annotation, in order."""
    return session.scalars(select(Review).where(Review.thread == thread).order_by(Review.sequence)).all()


def expert_reviews_count(session: Session, way: Way | None = None) -> int:
    """Annotations that experts have submitted and not withdrawn, of fields or of cells when a way is given.

    Imports are not counted.
    """
    live = _last_states().order_by(None).where(Review.status == ReviewStatus.submitted, Review.expert != IMPORT_EXPERT)
    if way is not None:
        live = live.where(Review.way == way)
    return session.scalar(select(func.count()).select_from(live.subquery())) or 0


def lead_times(session: Session, way: Way) -> list[tuple[int, float]]:
    """(image id, seconds) of every live submitted annotation whose duration is known: of whole fields, or of cells."""
    live = _last_states().where(
        Review.way == way, Review.status == ReviewStatus.submitted, Review.lead_time_s.is_not(None)
    )
    return [(review.image_id, float(review.lead_time_s or 0)) for review in session.scalars(live)]


def recent_looks(session: Session, most: int = 500) -> tuple[list[tuple[int, float]], list[float]]:
    """How long experts took lately: (cells shown, seconds) of whole fields, and the seconds of single cells.

    The newest `most` of each, submitted, of known duration, fields that were shown with a prediction.
    """
    timed = (Review.status == ReviewStatus.submitted, Review.lead_time_s.is_not(None))
    fields = (
        select(PackedPrediction.count, Review.lead_time_s)
        .join(PackedPrediction, PackedPrediction.prediction_id == Review.prediction_id)
        .where(Review.way == Way.field, *timed)
    )
    cells = select(Review.lead_time_s).where(Review.way == Way.cell, *timed)
    newest = Review.id.desc()
    shown = [(count, float(seconds or 0)) for count, seconds in session.execute(fields.order_by(newest).limit(most))]
    return shown, [float(seconds or 0) for seconds in session.scalars(cells.order_by(newest).limit(most))]


def unfinished(session: Session) -> Sequence[Image]:
    """Train images every live review of whose field is a skip: somebody opened them, nobody answered.

    An answer about one of its cells leaves a field as unfinished as it was.
    """
    live = _last_states().where(Review.way == Way.field).order_by(None).subquery()
    answered = select(live.c.image_id).where(live.c.status == ReviewStatus.submitted)
    skipped = select(live.c.image_id).where(live.c.status == ReviewStatus.skipped)
    query = select(Image).where(Image.split == Split.train, Image.id.in_(skipped), Image.id.not_in(answered))
    return session.scalars(query.order_by(Image.id)).all()
