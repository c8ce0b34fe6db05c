"""Workers watch over each other: each beats, and whoever sees another's beat rest takes its work back into the queues.

A worker that was taken for dead and was only slow (its machine slept, the network was away) finds itself ended at its
next beat, and leaves at once; until then the record refuses what it writes (`db/runs.py`), as DBOS refuses its steps.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from dbos import DBOS
from sqlalchemy.exc import SQLAlchemyError

from al_loop.context import Loop
from backend.locks import Occupied, is_held
from db import workers
from db.models import Worker

log = logging.getLogger("cellloop.worker")

BEAT_S = 2.0
# Ten beats missed. A takeover within a minute leaves room for a restart of PostgreSQL, and for a step's own start.
DEAD_AFTER_S = 20.0
LEFT_FOR_DEAD = 75  # exit status: a supervisor starts us again


def leave(status: int = 0) -> NoReturn:
    """End this process now. A training under way runs on a thread that Python would wait for, for hours perhaps;
    another worker continues it.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


class Watch:
    """What one worker has seen of the others' beats, by its own monotonic clock."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last_look = clock()
        self._seen: dict[int, tuple[int, float]] = {}  # worker -> its last beat, and when we first saw it

    def resting(self, beats: Mapping[int, int]) -> list[int]:
        """Workers whose beat has not grown for DEAD_AFTER_S. beats: of all living workers, just read.

        Time in which nothing could be read does not count against anybody: it begins anew for all.
        """
        now = self._clock()
        if self._seen and now - self._last_look > DEAD_AFTER_S / 2:
            self._seen.clear()
        self._last_look = now
        self._seen = {
            worker: self._seen[worker] if self._seen.get(worker, (-1, 0.0))[0] == beat else (beat, now)
            for worker, beat in beats.items()
        }
        return [worker for worker, (_, since) in self._seen.items() if now - since >= DEAD_AFTER_S]


@contextmanager
def beating(loop: Loop, worker_id: int) -> Iterator[None]:
    """Beat, and watch over the others, inside the block. Takes back at once what dead workers of this home left."""
    stop = threading.Event()
    watch = Watch()
    look_around(loop, worker_id, watch)

    def beat() -> None:
        while not stop.wait(BEAT_S):
            try:
                with loop.database.session() as session:
                    alive = workers.beat(session, worker_id)
                if not alive:
                    log.error("another worker took this one for dead and does its work now: leaving; start it again")
                    leave(LEFT_FOR_DEAD)
                look_around(loop, worker_id, watch)
            except SQLAlchemyError as error:
                log.warning("the database does not answer a beat: %s", str(error).split("\n")[0])

    thread = threading.Thread(target=beat, name="pulse", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=BEAT_S)


def look_around(loop: Loop, worker_id: int, watch: Watch) -> None:
    """End workers that are dead, and put the workflows of all that have ended back into their queues."""
    with loop.database.session(read_only=True) as session:
        others = [worker for worker in workers.living(session) if worker.id != worker_id]
    rested = set(watch.resting({worker.id: worker.beat for worker in others}))
    for worker in others:
        if worker.id in rested or _is_gone(loop, worker):
            with loop.database.session() as session:
                ended = workers.end(session, worker.id, "died")
            if ended:
                log.warning("worker %s died: its work goes on elsewhere", worker.name)
                lock_of(loop, worker.name).unlink(missing_ok=True)
    take_back(loop)


def lock_of(loop: Loop, name: str) -> Path:
    """The lock file that a worker of this home holds while it lives."""
    return loop.settings.home / "workers" / f"{name}.lock"


def _is_gone(loop: Loop, worker: Worker) -> bool:
    """Whether a worker of this machine and home has let go of its lock, or a record with one worker has another now."""
    if loop.embedded:
        return True  # we hold the only worker's lock
    lock = lock_of(loop, worker.name)
    return worker.host == socket.gethostname() and lock.exists() and not is_held(lock)


def take_back(loop: Loop) -> int:
    """Put workflows whose worker has ended back into their queues; how many. One worker at a time does so."""
    running = DBOS.list_workflows(status="PENDING", load_input=False, load_output=False)
    if not running:
        return 0
    with loop.database.session(read_only=True) as session:
        living = {worker.name for worker in workers.living(session)}
    if all(workflow.executor_id in living for workflow in running):
        return 0
    taken = 0
    try:
        with loop.alone("takeover", wait=False):
            # Read again: nobody else takes any back now, and one of a dead worker is nobody's until it is taken back.
            for workflow in DBOS.list_workflows(status="PENDING", load_input=False, load_output=False):
                with loop.database.session(read_only=True) as session:
                    living = {worker.name for worker in workers.living(session)}
                if workflow.executor_id not in living and workflow.queue_name is not None:
                    DBOS.resume_workflow(workflow.workflow_id, queue_name=workflow.queue_name)
                    log.warning("workflow %s of worker %s goes on", workflow.workflow_id, workflow.executor_id)
                    taken += 1
    except Occupied:
        return 0
    return taken
