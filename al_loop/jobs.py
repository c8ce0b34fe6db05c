"""Durable jobs: one DBOS runtime per worker process, whose workflows survive the process.

A workflow's finished steps are checkpointed in SQL, so a killed worker continues at the step that was cut off.
`APPLICATION_VERSION` is ours, not DBOS's default hash of the code: a release that only mends a bug must pick up
the runs its predecessor left. Change a workflow's steps and it gets a new name (`turn.v2`), never a new meaning.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NoReturn

from dbos import DBOS, DBOSConfig
from sqlalchemy.engine import make_url

from al_loop.context import Loop
from backend.errors import WorkerRunning
from backend.locks import Occupied, exclusive, is_held

APPLICATION_VERSION = "1"
EXECUTOR_ID = "worker"

_loop: Loop | None = None


def current_loop() -> Loop:
    """The loop this process works for. Steps run on DBOS's threads and take only JSON, so it is held here."""
    if _loop is None:
        raise RuntimeError("no durable runtime: call this inside `with durable(loop)`")
    return _loop


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
    """Only one process may run the durable jobs of a home at a time: two would both resume what one has begun.

    Raises WorkerRunning. The lock goes with the process, however it dies.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(exclusive(_lock_file(home), wait=False))
        except Occupied:
            raise WorkerRunning(f"{home}: expected no other worker, one is running; stop it first") from None
        yield


def worker_runs(home: Path) -> bool:
    """Whether a worker runs the durable jobs of this home."""
    return is_held(_lock_file(home))


def _lock_file(home: Path) -> Path:
    return home / "worker.lock"


def leave() -> NoReturn:
    """End this process now. A training under way runs on a thread that Python would wait for, for hours perhaps;
    the next worker continues it.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


@contextmanager
def durable(loop: Loop) -> Iterator[None]:
    """Run DBOS inside the block. Workflows that a killed process left behind go on from their last step at once."""
    global _loop
    config = DBOSConfig(
        name="cellloop",
        system_database_url=system_database_url(loop.settings.home, loop.settings.database_url),
        application_version=APPLICATION_VERSION,
        executor_id=EXECUTOR_ID,
        log_level="WARNING",
        console_log_level="WARNING",
    )
    with sole_worker(loop.settings.home):
        _loop = loop
        DBOS(config=config)
        DBOS.launch()
        try:
            yield
        finally:
            DBOS.destroy()
            _loop = None
