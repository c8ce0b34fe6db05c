"""Training runs from trigger to end, and what was measured."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from db.errors import IllegalTransition, NotFound
from db.labels import newest_revision_id
from db.models import RUN_TRANSITIONS, Evaluation, Metric, RunStatus, TrainingRun, now

OPEN = (RunStatus.queued, RunStatus.running)


@dataclass(frozen=True)
class MetricRow:
    """One number with its 95 % interval; None where undefined (NaN is taken for None)."""

    name: str
    value: float | None
    n: int
    class_name: str = ""  # "" for pooled numbers
    low: float | None = None
    high: float | None = None


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


def _move(session: Session, run_id: int, status: RunStatus, **changes: Any) -> TrainingRun:
    """Take a run one step further. Staying in the same state is a repeated job step and changes nothing."""
    query = select(TrainingRun).where(TrainingRun.id == run_id).with_for_update(key_share=True)
    run = session.scalar(query.execution_options(populate_existing=True))
    if run is None:
        return get(session, run_id)  # raises NotFound
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
    return _move(session, run_id, RunStatus.running, steps=steps)


def progress(session: Session, run_id: int, step: int, steps: int, message: str = "") -> bool:
    """Note how far a run is. False when it no longer runs (somebody cancelled it): stop training."""
    changed = session.execute(
        update(TrainingRun)
        .where(TrainingRun.id == run_id, TrainingRun.status == RunStatus.running)
        .values(step=step, steps=steps, message=message, updated_at=now())
        .returning(TrainingRun.id)
        .execution_options(synchronize_session="fetch")
    )
    return changed.first() is not None


def finish(session: Session, run_id: int, version_id: int, message: str = "") -> TrainingRun:
    """running -> succeeded, with the version it made."""
    return _move(session, run_id, RunStatus.succeeded, version_id=version_id, message=message)


def fail(session: Session, run_id: int, error: str) -> TrainingRun:
    """queued or running -> failed, with what a person needs to know."""
    return _move(session, run_id, RunStatus.failed, error=error)


def cancel(session: Session, run_id: int, message: str = "") -> TrainingRun:
    """queued or running -> cancelled. The training notices at its next `progress`."""
    return _move(session, run_id, RunStatus.cancelled, message=message)


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def add_evaluation(
    session: Session,
    pair_id: int,
    split: str,
    split_sha256: str,
    report: dict[str, Any],
    metrics: Iterable[MetricRow],
) -> Evaluation:
    """Store what a pair scored on a split, with its numbers as rows for questions over time."""
    evaluation = Evaluation(pair_id=pair_id, split=str(split), split_sha256=split_sha256, report=report)
    session.add(evaluation)
    session.flush()
    session.add_all(
        Metric(
            evaluation_id=evaluation.id,
            name=metric.name,
            class_name=metric.class_name,
            value=_number(metric.value),
            low=_number(metric.low),
            high=_number(metric.high),
            n=int(metric.n),
        )
        for metric in metrics
    )
    session.flush()
    return evaluation


def evaluation_of(session: Session, pair_id: int, split_sha256: str) -> Evaluation | None:
    """The newest evaluation of this pair on exactly this split, so that none is computed twice."""
    query = select(Evaluation).where(Evaluation.pair_id == pair_id, Evaluation.split_sha256 == split_sha256)
    return session.scalar(query.order_by(Evaluation.id.desc()).limit(1))


def metrics_of(session: Session, evaluation_id: int) -> dict[tuple[str, str], MetricRow]:
    """The numbers of an evaluation by (name, class name)."""
    rows = session.scalars(select(Metric).where(Metric.evaluation_id == evaluation_id).order_by(Metric.id))
    return {
        (row.name, row.class_name): MetricRow(row.name, row.value, row.n, row.class_name, row.low, row.high)
        for row in rows
    }


def reliability_of(session: Session, evaluation_id: int) -> dict[str, dict[str, list[float]]]:
    """Reliability curves of an evaluation by group ("infected", "suspected", "top", "cell"), without its whole report.

    Of each: "claimed" (mean probability), "observed" (share that it was so) and "n" (detections), by bin of equal mass.
    Empty where none were stored, as in evaluations of earlier times. Raises NotFound.
    """
    query = select(Evaluation.report["reliability"]).where(Evaluation.id == evaluation_id)
    found = session.execute(query).one_or_none()
    if found is None:
        raise NotFound(f"expected an evaluation with id {evaluation_id}, found none")
    return found[0] or {}


def newest_evaluation(session: Session, pair_id: int) -> Evaluation | None:
    """The newest evaluation of this pair on any split."""
    query = select(Evaluation).where(Evaluation.pair_id == pair_id).order_by(Evaluation.id.desc()).limit(1)
    return session.scalar(query)


def get_evaluation(session: Session, evaluation_id: int) -> Evaluation:
    """The evaluation with this id. Raises NotFound."""
    evaluation = session.get(Evaluation, evaluation_id)
    if evaluation is None:
        raise NotFound(f"expected an evaluation with id {evaluation_id}, found none")
    return evaluation
