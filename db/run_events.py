"""The log of training runs, from whichever worker, and how long their stages took."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.models import RunEvent, RunStatus, TrainingRun

STAGE = "stage"  # level of the line that begins a stage


def add_event(
    session: Session,
    run_id: int,
    message: str,
    *,
    level: str = "info",
    stage: str = "",
    worker_id: int | None = None,
    at: datetime | None = None,
) -> RunEvent:
    """One line of a run's log. at: now, unless it is told."""
    moment = {} if at is None else {"at": at}
    event = RunEvent(run_id=run_id, message=message, level=level[:16], stage=stage[:16], worker_id=worker_id, **moment)
    session.add(event)
    session.flush()
    return event


def events(session: Session, run_id: int, after: int = 0, limit: int | None = None) -> Sequence[RunEvent]:
    """Lines of a run's log with an id above `after`, oldest first; with a limit, the newest of them."""
    query = select(RunEvent).where(RunEvent.run_id == run_id, RunEvent.id > after)
    if limit is None:
        return session.scalars(query.order_by(RunEvent.id)).all()
    return session.scalars(query.order_by(RunEvent.id.desc()).limit(limit)).all()[::-1]


def seconds_after(session: Session, role: str, stage: str) -> float | None:
    """How long the last succeeded run of this role took from the end of a stage to its own end; None: unknown."""
    query = select(TrainingRun).where(TrainingRun.role == role, TrainingRun.status == RunStatus.succeeded)
    last = session.scalar(query.order_by(TrainingRun.id.desc()).limit(1))
    if last is None or last.finished_at is None:
        return None
    begun = select(RunEvent).where(RunEvent.run_id == last.id, RunEvent.level == STAGE).order_by(RunEvent.id)
    stages = session.scalars(begun).all()
    for this, following in itertools.pairwise(stages):
        if this.stage == stage != following.stage:
            return max(0.0, (last.finished_at - following.at).total_seconds())
    return None
