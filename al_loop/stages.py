"""A stage of a training run: who works on it, what it is at, and its lines in the run's log."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from al_loop.jobs import Runtime, runtime
from al_loop.retrain import RunCancelled
from backend.logs import about
from db import run_events, runs

log = logging.getLogger("cellloop.cycle")


@contextmanager
def stage(run_id: int, name: str, message: str) -> Iterator[Runtime]:
    """Be the worker of this run, and in this stage of it, inside the block.

    Raises RunCancelled when the run has ended, TakenOver when this worker was taken for dead.
    """
    here = runtime()
    with here.loop.database.session() as session:
        run = runs.take_up(session, run_id, here.worker_id)
        if run.finished_at is not None:
            raise RunCancelled(f"training run {run_id} was {run.status.value} before {message}")
        runs.enter_stage(session, run_id, name, here.worker_id)
        runs.progress(session, run_id, run.step, run.steps, message, ends_at=run.ends_at)
        said = message if run.attempt == 1 else f"{message} (worker {run.attempt} of this run)"
        run_events.add_event(session, run_id, said, level=run_events.STAGE, stage=name, worker_id=here.worker_id)
    with about(run=run_id, stage=name):
        yield here


@contextmanager
def follow_stage(run_id: int | None, name: str, message: str) -> Iterator[Runtime]:
    """Be in a stage that follows a run's decision, on whatever worker, inside the block. Cancelling is too late."""
    here = runtime()
    if run_id is not None:
        with here.loop.database.session() as session:
            run = runs.get(session, run_id)
            run.stage = name
            runs.progress(session, run_id, run.step, run.steps, message, ends_at=run.ends_at)
            run_events.add_event(session, run_id, message, level=run_events.STAGE, stage=name, worker_id=here.worker_id)
    with about(run=run_id, stage=name):
        yield here


def note(run_id: int | None, message: str) -> None:
    """Tell SQL, and so everybody who looks, what the run is doing."""
    if run_id is None:
        return
    with runtime().loop.database.session() as session:
        run = runs.get(session, run_id)
        runs.progress(session, run_id, run.step, run.steps, message, ends_at=run.ends_at)
