"""Training in the foreground, and the first version of each role, which has no incumbent to be compared with.

Under `torchrun` this runs once per process: the first one keeps the record, the others only train along.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

from al_loop.calibrate_pair import ensure_pair
from al_loop.context import Loop
from al_loop.retrain import clean_up, retrain, train_run, training_config
from al_loop.train import Progress
from al_loop.train_distributed import joined
from backend.detect import pick_device
from backend.errors import WorkerRunning
from db import runs, versions
from db.models import ModelVersion, RunStatus

COMMAND = "command"  # trigger of a run that its command trains itself; workers leave it alone


def train_here(
    loop: Loop, role: str, on_progress: Callable[[Progress], None] = lambda progress: None
) -> ModelVersion | None:
    """Train a version of this role in this process; a killed one is continued. The first of its role serves.

    None in a process that only helps (under torchrun, all but the first). Raises WorkerRunning while a worker trains
    the role, NotEnoughData, TrainingDiverged, OutOfMemory.
    """
    with joined(pick_device(loop.settings.device)) as (ranks, _):
        run_id = ranks.tell(_open(loop, role) if ranks.leads else 0)
        if not ranks.leads:
            train_run(loop, run_id)
            return None
        return _trained(loop, role, run_id, on_progress)


def _trained(loop: Loop, role: str, run_id: int, on_progress: Callable[[Progress], None]) -> ModelVersion:
    try:
        version_id = retrain(loop, run_id, on_progress)
    except KeyboardInterrupt:
        raise  # the run stays open: the same command goes on from its checkpoint
    except Exception as error:
        with loop.database.session() as session:
            runs.fail(session, run_id, f"{type(error).__name__}: {error}")
        raise
    with loop.database.session() as session:
        if versions.active(session, role) is None:
            versions.activate(session, version_id, kind="first", reasons=[f"the first {role} version"], run_id=run_id)
        runs.finish(session, run_id, version_id)
    ensure_pair(loop)
    clean_up(loop, run_id)
    with loop.database.session(read_only=True) as session:
        return versions.get(session, version_id)


def _open(loop: Loop, role: str) -> int:
    with loop.database.session() as session:
        run = runs.open_of(session, role)
        if run is None:
            run = runs.open_run(session, role, COMMAND, {}, asdict(training_config(loop.settings, role)))
        if run is None or run.trigger != COMMAND:
            which = f"run {run.id} ({run.trigger}) is {run.status.value}" if run else "another one has just begun"
            raise WorkerRunning(
                f"{role}: expected no open training, {which}; let it end: it runs in `cellloop worker`, once that is up"
            )
        if run.status == RunStatus.queued:
            runs.start_run(session, run.id, loop.settings.train_steps)
        return run.id
