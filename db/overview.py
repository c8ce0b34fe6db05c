"""What pages for people ask of the views: the newest of everything, whatever the size of the record."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

from sqlalchemy import Select, case, func, literal, or_, select
from sqlalchemy.orm import Session

from db.chunks import chunks
from db.models import (
    Action,
    Evaluation,
    Image,
    LabelRevision,
    ModelPair,
    PromotionDecision,
    Review,
    ReviewStatus,
    TrainingRun,
)
from db.reviews import IMPORT_EXPERT
from db.views import one_if
from db.views_counts import IMAGE_EVENTS, PARASITAEMIA
from db.views_life import CELL_EVENTS
from db.views_models import DECISIONS, METRICS, VERSIONS
from db.views_people import CORRECTIONS

Rows = list[dict[str, Any]]


def _rows(session: Session, query: Select[*tuple[object, ...]]) -> Rows:
    return [dict(row) for row in session.execute(query).mappings()]


def newest_evaluations(session: Session, most: int) -> list[int]:
    """Ids of the last evaluations that a decision about a candidate rests on, oldest first.

    Only those on the same images as the newest one: numbers of different rulers are no curve.
    """
    split = (
        select(Evaluation.split_sha256)
        .join(PromotionDecision, PromotionDecision.evaluation_id == Evaluation.id)
        .order_by(PromotionDecision.id.desc())
        .limit(1)
        .scalar_subquery()
    )
    query = (
        select(Evaluation.id)
        .join(PromotionDecision, PromotionDecision.evaluation_id == Evaluation.id)
        .where(Evaluation.split_sha256 == split)
        .order_by(PromotionDecision.id.desc())
        .limit(most)
    )
    return list(dict.fromkeys(reversed(session.scalars(query).all())))


def metrics(session: Session, evaluation_ids: Collection[int]) -> Rows:
    """Every number of these evaluations, as `v_metrics` has it, by evaluation."""
    view = METRICS.table
    query = select(view).where(view.c.evaluation_id.in_(list(evaluation_ids)))
    return _rows(session, query.order_by(view.c.evaluation_id, view.c.metric_id))


def decisions(session: Session, most: int) -> Rows:
    """The last decisions, newest first, as `v_decisions` has them."""
    view = DECISIONS.table
    return _rows(session, select(view).order_by(view.c.decision_id.desc()).limit(most))


def versions(session: Session, most: int) -> Rows:
    """The newest versions, newest first, as `v_versions` has them."""
    view = VERSIONS.table
    return _rows(session, select(view).order_by(view.c.version_id.desc()).limit(most))


def runs(session: Session, most: int) -> Sequence[TrainingRun]:
    """The newest trainings, newest first."""
    return session.scalars(select(TrainingRun).order_by(TrainingRun.id.desc()).limit(most)).all()


def labels_per_day(session: Session, last: date, days: int) -> Rows:
    """How many answers experts gave on each of so many `days` (UTC) up to the last, by `day` and `label`, as `answers`.

    A statement a day: grouping by the text of a moment's day takes twice as long.
    """
    found: Rows = []
    for back in reversed(range(days)):
        day = last - timedelta(days=back)
        begin = datetime(day.year, day.month, day.day, tzinfo=UTC)
        query = (
            select(literal(day.isoformat()).label("day"), LabelRevision.label, func.count().label("answers"))
            .where(
                LabelRevision.decided_at >= begin,
                LabelRevision.decided_at < begin + timedelta(days=1),
                LabelRevision.action.not_in([Action.imported, Action.withdrawn]),
            )
            .group_by(LabelRevision.label)
        )
        found += _rows(session, query)
    return found


def work(session: Session, since: datetime) -> Rows:
    """What each expert did since then, by `way`: reviews `submitted` and `skipped`, `answers` and `seconds`."""
    said = select(func.count()).where(LabelRevision.review_id == Review.id).correlate(Review).scalar_subquery()
    submitted = Review.status == ReviewStatus.submitted
    of = (
        select(
            Review.expert,
            Review.way,
            one_if(submitted).label("submitted"),
            one_if(Review.status == ReviewStatus.skipped).label("skipped"),
            case((submitted, Review.lead_time_s)).label("seconds"),
            said.label("answers"),
        )
        .where(Review.revised_at >= since, Review.expert != IMPORT_EXPERT)
        .subquery("of")
    )
    totals = [func.sum(of.c[name]).label(name) for name in ("submitted", "skipped", "answers", "seconds")]
    query = select(of.c.expert, of.c.way, *totals).group_by(of.c.expert, of.c.way)
    counts = ("submitted", "skipped", "answers")
    rows = _rows(session, query.order_by(of.c.expert, of.c.way.desc()))
    return [row | {name: int(row[name]) for name in counts} for row in rows]  # PostgreSQL adds up to Decimals


def corrections(session: Session, pairs: int) -> Rows:
    """What experts did to the pre-annotation of the newest pairs, oldest first, as `v_corrections` has it."""
    view = CORRECTIONS.table
    newest = session.scalars(select(ModelPair.id).order_by(ModelPair.id.desc()).limit(pairs)).all()
    query = select(view).where(view.c.pair_id.in_(newest))
    return _rows(session, query.order_by(view.c.pair_id, view.c.way))


def cell_events(session: Session, cell_id: int) -> Rows:
    """The life of one cell, as `v_cell_events` has it, oldest first."""
    view = CELL_EVENTS.table
    return _rows(session, select(view).where(view.c.cell_id == cell_id).order_by(view.c.at, view.c.ref))


def image_events(session: Session, image_id: int) -> Rows:
    """The life of one image, as `v_image_events` has it, oldest first."""
    view = IMAGE_EVENTS.table
    return _rows(session, select(view).where(view.c.image_id == image_id).order_by(view.c.at, view.c.ref))


def parasitaemia(session: Session, image_ids: Collection[int]) -> Rows:
    """Counts and parasitaemia of these images by every source, as `v_parasitaemia` has them."""
    view = PARASITAEMIA.table
    found: Rows = []
    for chunk in chunks(image_ids):
        query = select(view).where(view.c.image_id.in_(chunk))
        found += _rows(session, query.order_by(view.c.image_id, view.c.source))
    return found


def newest_slides(session: Session, most: int, before: int | None = None) -> list[tuple[str, int]]:
    """(slide, its newest image's id), newest first; only those older than this id when given."""
    newest = func.max(Image.id)
    query = select(Image.group, newest).group_by(Image.group).order_by(newest.desc()).limit(most)
    if before is not None:
        query = query.having(newest < before)
    return [(slide, image_id) for slide, image_id in session.execute(query)]


def patients_of(session: Session, slides: Collection[str]) -> list[str]:
    """The patients whom these slides are known to be of, in order."""
    query = select(Image.patient).where(Image.group.in_(list(slides)), Image.patient.is_not(None)).distinct()
    return sorted(patient for patient in session.scalars(query) if patient is not None)


def images_of(session: Session, slides: Collection[str], patients: Collection[str]) -> list[int]:
    """Ids of the images of these slides, and of these patients."""
    either = or_(Image.group.in_(list(slides)), Image.patient.in_(list(patients)))
    return list(session.scalars(select(Image.id).where(either)))
