"""What a training run says, into its log in SQL, whichever worker it runs on.

Lines are written by a thread of their own: whoever logs may be in the middle of a transaction, which on SQLite nobody
else may write beside.
"""

from __future__ import annotations

import logging
import queue
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from logging.handlers import QueueHandler, QueueListener

from sqlalchemy.exc import SQLAlchemyError

from db import run_events
from db.session import Database

LOGGER = "cellloop"


@dataclass(frozen=True)
class _Place:
    """Where in which run a thread works."""

    run_id: int
    stage: str


_place: ContextVar[_Place | None] = ContextVar("place", default=None)


@contextmanager
def about_run(run_id: int | None, stage: str) -> Iterator[None]:
    """Everything that is logged in the block belongs to this run's log; to none without a run."""
    token = _place.set(None if run_id is None else _Place(run_id, stage))
    try:
        yield
    finally:
        _place.reset(token)


class _OfRuns(QueueHandler):
    """Keeps what belongs to a run, and where."""

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        place = _place.get()
        prepared = super().prepare(record)
        prepared.__dict__["place"] = place
        return prepared

    def emit(self, record: logging.LogRecord) -> None:
        if _place.get() is not None:
            super().emit(record)


class _IntoRecord(logging.Handler):
    def __init__(self, database: Database, worker_id: int) -> None:
        super().__init__()
        self._database = database
        self._worker_id = worker_id

    def emit(self, record: logging.LogRecord) -> None:
        place: _Place = record.__dict__["place"]
        try:
            with self._database.session() as session:
                run_events.add_event(
                    session,
                    place.run_id,
                    record.getMessage(),
                    level=record.levelname.lower(),
                    stage=place.stage,
                    worker_id=self._worker_id,
                    at=datetime.fromtimestamp(record.created, UTC),
                )
        except SQLAlchemyError:  # the worker's own log has the line, too
            self.handleError(record)


@contextmanager
def logged_runs(database: Database, worker_id: int) -> Iterator[None]:
    """Inside the block, what the loop logs about a run is kept in the record."""
    lines: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    handler = _OfRuns(lines)
    listener = QueueListener(lines, _IntoRecord(database, worker_id))
    logger = logging.getLogger(LOGGER)
    before = logger.level
    logger.addHandler(handler)
    if logger.getEffectiveLevel() > logging.INFO:
        logger.setLevel(logging.INFO)
    listener.start()
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
        listener.stop()
