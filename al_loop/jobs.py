"""Durable jobs: one DBOS runtime per worker process, whose workflows survive the process.

A workflow's finished steps are checkpointed in SQL, so a killed worker's workflows go on at the step that was cut off:
in the next worker of this home, or, where PostgreSQL holds the record, in any living worker (`al_loop/pulse.py`).
`APPLICATION_VERSION` is ours, not DBOS's default hash of the code: a release that only mends a bug must pick up
the runs its predecessor left. Change a workflow's steps and it gets a new name (`turn.v2`), never a new meaning.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from dbos import DBOS, DBOSConfig
from sqlalchemy.engine import make_url

from al_loop.context import Loop
from al_loop.pulse import beating, lock_of
from al_loop.run_log import logged_runs
from backend.errors import UnknownQueue, WorkerRunning
from backend.locks import Occupied, exclusive, is_held
from backend.serving import PairCache
from db import workers

APPLICATION_VERSION = "1"
TRAIN, PREDICT, SYNC = "train", "predict", "sync"
# Of each, a worker works on so much at a time: a GPU holds one training, and one pair that predicts.
QUEUES = {TRAIN: 1, PREDICT: 1, SYNC: 1}
LOOK_EVERY_S = 0.25  # how often a worker looks into each of its queues


@dataclass(frozen=True)
class Runtime:
    """What steps work with in this process. worker_id: who we are, in the record."""

    loop: Loop
    worker_id: int
    pairs: PairCache


_runtime: Runtime | None = None


def runtime() -> Runtime:
    """The runtime of this process. Steps run on DBOS's threads and take only JSON, so it is held here."""
    if _runtime is None:
        raise RuntimeError("no durable runtime: call this inside `with durable(loop)`")
    return _runtime


def system_database_url(home: Path, database_url: str) -> str:
    """Where DBOS keeps its checkpoints.

    Beside PostgreSQL's tables in a schema of their own (`dbos`). With SQLite in a file of its own: its table
    names are unprefixed, and its reset deletes the whole file.
    """
    if make_url(database_url).get_backend_name() == "sqlite":
        return f"sqlite:///{home / 'jobs.sqlite'}"
    return database_url.replace("postgresql+psycopg://", "postgresql://")


@contextmanager
def sole_worker(home: Path) -> Iterator[None]:
    """Only one process may run the durable jobs of a home with SQLite: two would wait for each other's writes.

    Raises WorkerRunning. The lock goes with the process, however it dies.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(exclusive(_lock_file(home), wait=False))
        except Occupied:
            raise WorkerRunning(
                f"{home}: expected no other worker, one is running; stop it first. Several need PostgreSQL, "
                "see CELLLOOP_DATABASE_URL"
            ) from None
        yield


def worker_lives(loop: Loop, queue: str) -> bool:
    """Whether a worker takes work from this queue now, on whatever machine."""
    if loop.embedded and not worker_in_the_way(loop):
        return False
    with loop.database.session(read_only=True) as session:
        return any(queue in worker.queues for worker in workers.living(session))


def worker_in_the_way(loop: Loop) -> bool:
    """Whether a worker of this home keeps this process from being one: with SQLite there is one at a time."""
    return loop.embedded and is_held(_lock_file(loop.settings.home))


def _lock_file(home: Path) -> Path:
    return home / "worker.lock"


def checked(queues: Sequence[str]) -> list[str]:
    """Names of queues, without repetitions. Raises UnknownQueue."""
    unknown = [name for name in queues if name not in QUEUES]
    if unknown or not queues:
        raise UnknownQueue(f"queues: expected some of {', '.join(QUEUES)}, got {', '.join(unknown) or 'none'}")
    return list(dict.fromkeys(queues))


@contextmanager
def durable(loop: Loop, queues: Sequence[str] = tuple(QUEUES)) -> Iterator[Runtime]:
    """Be a worker inside the block: DBOS runs what these queues hold, here or as other workers left it.

    Raises WorkerRunning, UnknownQueue.
    """
    global _runtime
    queues = checked(queues)
    host = socket.gethostname()
    name = f"{host[:80]}-{os.getpid()}-{secrets.token_hex(4)}"
    with ExitStack() as stack:
        if loop.embedded:
            stack.enter_context(sole_worker(loop.settings.home))
        stack.enter_context(exclusive(lock_of(loop, name), wait=False))
        with loop.database.session() as session:
            worker_id = workers.register(session, name, host, os.getpid(), queues).id
        _runtime = Runtime(loop, worker_id, PairCache(loop.database, loop.store, loop.settings.device))
        config = DBOSConfig(
            name="cellloop",
            system_database_url=system_database_url(loop.settings.home, loop.settings.database_url),
            application_version=APPLICATION_VERSION,
            executor_id=name,
            log_level="WARNING",
            console_log_level="WARNING",
        )
        DBOS(config=config)
        DBOS.listen_queues(queues)
        DBOS.launch()
        try:
            for queue, at_once in QUEUES.items():
                DBOS.register_queue(queue, worker_concurrency=at_once, polling_interval_sec=LOOK_EVERY_S)
            with logged_runs(loop.database, worker_id), beating(loop, worker_id):
                yield _runtime
        finally:
            DBOS.destroy()
            with loop.database.session() as session:
                workers.end(session, worker_id, "stopped")
            lock_of(loop, name).unlink(missing_ok=True)
            _runtime = None
