"""Training runs from trigger to end.

A worker that works on a run names itself with every change. One that was taken for dead, and wakes up after another has
taken the run over, is told so instead of writing.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from db.errors import IllegalTransition, NotFound, TakenOver
from db.labels import newest_revision_id
from db.models import RUN_TRANSITIONS, RunStatus, TrainingRun, Worker, now

OPEN = (RunStatus.queued, RunStatus.running)


def open_run(
    session: Session, role: str, trigger: str, detail: dict[str, Any], config: dict[str, Any]
) -> TrainingRun | None:
    """Queue a training of this role on the labels recorded so far; None when one is already queued or running."""
    if open_of(session, role) is not None:
        return None
    run = TrainingRun(
        role=role,
        trigger=trigger,
        detail=detail,
        config=config,
        newest_revision_id=newest_revision_id(session),
    )
    try:
        with session.begin_nested():
            session.add(run)
    except IntegrityError:
        if open_of(session, role) is None:
            raise
        return None  # another process was faster
    return run


def retry(session: Session, run_id: int, why: str) -> TrainingRun | None:
    """Queue a run that failed or was cancelled once more: on the same labels, from its last checkpoint.

    None when a run of this role is open already. Raises NotFound, IllegalTransition.
    """
    last = get(session, run_id)
    if last.status not in (RunStatus.failed, RunStatus.cancelled):
        raise IllegalTransition(
            f"training run {run_id} is {last.status.value}: expected one that failed or was cancelled to retry"
        )
    again = open_run(session, last.role, "person", {"why": why, "retry": run_id}, last.config)
    if again is not None:
        again.newest_revision_id = last.newest_revision_id
        again.retry_of = last.retry_of or last.id
        again.checkpoint_sha256 = last.checkpoint_sha256
        session.flush()
    return again


def get(session: Session, run_id: int) -> TrainingRun:
    """The run with this id. Raises NotFound."""
    run = session.get(TrainingRun, run_id)
    if run is None:
        raise NotFound(f"expected a training run with id {run_id}, found none")
    return run


def open_of(session: Session, role: str) -> TrainingRun | None:
    """The run of this role that is queued or running."""
    return session.scalar(select(TrainingRun).where(TrainingRun.role == role, TrainingRun.status.in_(OPEN)))


def all_open(session: Session) -> Sequence[TrainingRun]:
    """Every run that is queued or running, oldest first."""
    return session.scalars(select(TrainingRun).where(TrainingRun.status.in_(OPEN)).order_by(TrainingRun.id)).all()


def latest(session: Session, role: str, status: RunStatus | None = None) -> TrainingRun | None:
    """The newest run of this role; with this status when given."""
    query = select(TrainingRun).where(TrainingRun.role == role).order_by(TrainingRun.id.desc()).limit(1)
    return session.scalar(query if status is None else query.where(TrainingRun.status == status))


def runs(session: Session) -> Sequence[TrainingRun]:
    """All runs, oldest first."""
    return session.scalars(select(TrainingRun).order_by(TrainingRun.id)).all()


def recent(session: Session, limit: int) -> Sequence[TrainingRun]:
    """The newest runs, newest first."""
    return session.scalars(select(TrainingRun).order_by(TrainingRun.id.desc()).limit(limit)).all()


def _held(session: Session, run_id: int, worker_id: int | None) -> TrainingRun:
    """The run, held against other writers and freshly read. Raises NotFound, and TakenOver where it is another's."""
    query = select(TrainingRun).where(TrainingRun.id == run_id).with_for_update(key_share=True)
    run = session.scalar(query.execution_options(populate_existing=True))
    if run is None:
        return get(session, run_id)  # raises NotFound
    if worker_id is not None and run.worker_id != worker_id:
        raise TakenOver(f"training run {run_id}: expected to be its worker, another one has taken it over")
    return run


def _move(
    session: Session, run_id: int, status: RunStatus, worker_id: int | None = None, **changes: Any
) -> TrainingRun:
    """Take a run one step further. Staying in the same state is a repeated job step and changes nothing."""
    run = _held(session, run_id, worker_id)
    if run.status == status:
        return run
    if status not in RUN_TRANSITIONS[run.status]:
        allowed = " or ".join(sorted(step.value for step in RUN_TRANSITIONS[run.status])) or "nothing more"
        raise IllegalTransition(
            f"training run {run_id} is {run.status.value}: expected a step to {allowed}, got {status.value}"
        )
    run.status = status
    for name, value in changes.items():
        setattr(run, name, value)
    if not RUN_TRANSITIONS[status]:
        run.finished_at = now()
    session.flush()
    return run


def start_run(session: Session, run_id: int, steps: int = 0) -> TrainingRun:
    """queued -> running."""
    return _move(session, run_id, RunStatus.running, steps=steps, started_at=now())


def take_up(session: Session, run_id: int, worker_id: int) -> TrainingRun:
    """Let this worker, and no other, work on a run from now on; queued -> running. An ended run stays as it is.

    Raises TakenOver when the worker has been ended.
    """
    run = _held(session, run_id, None)
    if run.status not in OPEN:
        return run
    alive = select(Worker.id).where(Worker.id == worker_id, Worker.ended.is_(None)).with_for_update(key_share=True)
    if session.scalar(alive) is None:
        raise TakenOver(f"training run {run_id}: expected a living worker, this one was taken for dead")
    if run.status == RunStatus.queued:
        run.status, run.started_at = RunStatus.running, now()
    if run.worker_id != worker_id:
        run.worker_id, run.attempt = worker_id, run.attempt + 1
    session.flush()
    return run


def progress(
    session: Session,
    run_id: int,
    step: int,
    steps: int,
    message: str = "",
    *,
    worker_id: int | None = None,
    ends_at: datetime | None = None,
) -> bool:
    """Note how far a run is. False when it no longer runs (somebody cancelled it): stop training.

    worker_id: who says so. Raises TakenOver when another works on it.
    """
    query = update(TrainingRun).where(TrainingRun.id == run_id, TrainingRun.status == RunStatus.running)
    if worker_id is not None:
        query = query.where(TrainingRun.worker_id == worker_id)
    changed = session.execute(
        query.values(step=step, steps=steps, message=message, updated_at=now(), ends_at=ends_at)
        .returning(TrainingRun.id)
        .execution_options(synchronize_session="fetch")
    )
    if changed.first() is not None:
        return True
    _held(session, run_id, worker_id)
    return False


def enter_stage(session: Session, run_id: int, stage: str, worker_id: int) -> TrainingRun:
    """Note which stage a run has come to. Raises TakenOver when another works on it."""
    run = _held(session, run_id, worker_id)
    run.stage = stage
    session.flush()
    return run


def set_checkpoint(session: Session, run_id: int, sha256: str, worker_id: int) -> str | None:
    """Note which checkpoint in the shared store to go on from; the one before. Raises TakenOver."""
    run = _held(session, run_id, worker_id)
    before, run.checkpoint_sha256 = run.checkpoint_sha256, sha256
    session.flush()
    return before


def finish(
    session: Session, run_id: int, version_id: int, message: str = "", worker_id: int | None = None
) -> TrainingRun:
    """running -> succeeded, with the version it made. Raises TakenOver when another works on it."""
    return _move(session, run_id, RunStatus.succeeded, worker_id, version_id=version_id, message=message, ends_at=None)


def fail(session: Session, run_id: int, error: str, worker_id: int | None = None) -> TrainingRun:
    """queued or running -> failed, with what a person needs to know. Raises TakenOver when another works on it."""
    return _move(session, run_id, RunStatus.failed, worker_id, error=error, ends_at=None)


def cancel(session: Session, run_id: int, message: str = "") -> TrainingRun:
    """queued or running -> cancelled. The training notices at its next `progress`."""
    return _move(session, run_id, RunStatus.cancelled, message=message, ends_at=None)
