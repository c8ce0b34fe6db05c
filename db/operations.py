"""The record in a few numbers, for who watches over an installation: cheap enough to be asked for all day.

Every question is answered from an index, or from tables that grow by one row per training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from db import answers, queue, runs
from db.models import (
    ApiToken,
    InboxEvent,
    LabelRevision,
    ModelVersion,
    PredictionRequest,
    Project,
    PromotionDecision,
    Review,
    TrainingRun,
    UtcDateTime,
    VersionStatus,
    Worker,
)

BEAT_RESTS = timedelta(seconds=60)  # longer, and a worker counts as gone, until another one ends it in the record


@dataclass(frozen=True)
class OpenRun:
    """A training run that is queued or running. stage: "" before its first."""

    id: int
    role: str
    status: str
    stage: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True)
class Operations:
    """What a record holds at one moment.

    inbox, requests: how many webhook calls and images wait, and since when the oldest has. queue: (way, items, of
    them in hand). newest_review, newest_revision: ids, which grow by each. synced: per project, its title and when it
    was last read to the end. active: version by role. decisions: (role, kind, promote, how many). ended_runs: (role,
    status, how many). workers: those nobody has ended.
    """

    pair: str | None
    inbox: tuple[int, datetime | None]
    requests: tuple[int, datetime | None]
    newest_review: int
    newest_revision: int
    queue: list[tuple[str, int, int]] = field(default_factory=list)
    synced: list[tuple[str, datetime | None, datetime]] = field(default_factory=list)
    open_runs: list[OpenRun] = field(default_factory=list)
    active: dict[str, int] = field(default_factory=dict)
    decisions: list[tuple[str, str, bool, int]] = field(default_factory=list)
    ended_runs: list[tuple[str, str, int]] = field(default_factory=list)
    workers: list[Worker] = field(default_factory=list)


def operations(session: Session) -> Operations:
    """All of it, in a dozen short statements."""
    pair = answers.serving_pair(session)
    versions = select(ModelVersion.role, ModelVersion.id).where(ModelVersion.status == VersionStatus.active)
    decided = (
        select(ModelVersion.role, PromotionDecision.kind, PromotionDecision.promote, func.count())
        .join(ModelVersion, ModelVersion.id == PromotionDecision.version_id)
        .group_by(ModelVersion.role, PromotionDecision.kind, PromotionDecision.promote)
    )
    ended = (
        select(TrainingRun.role, TrainingRun.status, func.count())
        .where(TrainingRun.status.not_in(runs.OPEN))
        .group_by(TrainingRun.role, TrainingRun.status)
    )
    return Operations(
        pair=None if pair is None else pair.name,
        inbox=_waiting(session, InboxEvent.received_at, InboxEvent.handled_at.is_(None)),
        requests=_waiting(session, PredictionRequest.created_at),
        newest_review=session.scalar(select(func.max(Review.id))) or 0,
        newest_revision=session.scalar(select(func.max(LabelRevision.id))) or 0,
        queue=_queue(session),
        synced=[(title, at, made) for title, at, made in session.execute(_SYNCED)],
        open_runs=[
            OpenRun(run.id, run.role, run.status.value, run.stage, run.created_at, run.updated_at)
            for run in runs.all_open(session)
        ],
        active={role: version_id for role, version_id in session.execute(versions)},
        decisions=[(role, kind, promote, many) for role, kind, promote, many in session.execute(decided)],
        ended_runs=[(role, status.value, many) for role, status, many in session.execute(ended)],
        workers=list(session.scalars(select(Worker).where(Worker.ended.is_(None)).order_by(Worker.id))),
    )


_SYNCED = select(Project.title, Project.synced_at, Project.created_at).order_by(Project.id)


def _waiting(
    session: Session, since: InstrumentedAttribute[datetime], *conditions: ColumnElement[bool]
) -> tuple[int, datetime | None]:
    many, oldest = session.execute(select(func.count(), func.min(since)).where(*conditions)).one()
    return many, oldest


def _queue(session: Session) -> list[tuple[str, int, int]]:
    found: dict[str, tuple[int, int]] = {}
    for row in queue.waiting(session):
        items, held = found.get(row.way.value, (0, 0))
        found[row.way.value] = (items + row.items, held + row.in_hand)
    return [(way, items, held) for way, (items, held) in found.items()]


def living(found: Operations, moment: datetime) -> list[Worker]:
    """Workers that beat, as far as this moment's clock and theirs agree."""
    return [worker for worker in found.workers if moment - worker.beat_at < BEAT_RESTS]


def tokens_ending(session: Session, before: datetime) -> Sequence[ApiToken]:
    """Tokens that nobody has revoked and that end before this moment, or have, the first to end first."""
    query = select(ApiToken).where(ApiToken.revoked_at.is_(None), ApiToken.expires_at < before)
    return session.scalars(query.order_by(ApiToken.expires_at)).all()


def database_now(session: Session) -> datetime:
    """What the database's clock says. On SQLite that is this machine's own."""
    return session.scalars(select(func.current_timestamp(type_=UtcDateTime))).one()
