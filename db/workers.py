"""Workers: processes that take work from queues, and whether they live.

A worker counts its beats in the record. Whoever sees a beat rest for long enough, by their own clock, ends that worker;
who is ended writes nothing more. No two machines need the same time, and a clock may jump.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from db.models import RunStatus, TrainingRun, Worker, now


def register(session: Session, name: str, host: str, pid: int, queues: Sequence[str]) -> Worker:
    """A new worker, alive. name: unique for good, and DBOS's executor id."""
    worker = Worker(name=name, host=host, pid=pid, queues=list(queues))
    session.add(worker)
    session.flush()
    return worker


def beat(session: Session, worker_id: int) -> bool:
    """One more beat. False: somebody has ended this worker, and others do its work now."""
    beating = update(Worker).where(Worker.id == worker_id, Worker.ended.is_(None))
    changed = session.execute(beating.values(beat=Worker.beat + 1, beat_at=now()).returning(Worker.id))
    return changed.first() is not None


def end(session: Session, worker_id: int, how: str) -> bool:
    """End a worker, "stopped" or "died": its open runs are nobody's from now on. False: it had ended already."""
    ending = update(Worker).where(Worker.id == worker_id, Worker.ended.is_(None))
    changed = session.execute(ending.values(ended=how, ended_at=now()).returning(Worker.id))
    if changed.first() is None:
        return False
    open_runs = TrainingRun.status.in_((RunStatus.queued, RunStatus.running))
    left = update(TrainingRun).where(TrainingRun.worker_id == worker_id, open_runs)
    session.execute(left.values(worker_id=None, updated_at=TrainingRun.updated_at))
    return True


def living(session: Session) -> Sequence[Worker]:
    """Workers that nobody has ended, oldest first."""
    return session.scalars(select(Worker).where(Worker.ended.is_(None)).order_by(Worker.id)).all()


def named(session: Session, worker_id: int | None) -> str:
    """A worker's name; "" for none."""
    worker = session.get(Worker, worker_id) if worker_id is not None else None
    return worker.name if worker is not None else ""
