"""What a training run says, into its log in SQL, whichever worker it runs on.

Lines are written by a thread of their own: whoever logs may be in the middle of a transaction, which on SQLite nobody
else may write beside.
"""

from __future__ import annotations

import logging
import queue
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from logging.handlers import QueueHandler, QueueListener

from sqlalchemy.exc import SQLAlchemyError

from backend.logs import current
from db import run_events
from db.session import Database

LOGGER = "cellloop"


class _OfRuns(QueueHandler):
    """Keeps what is about a run, with what else it is about."""

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        prepared = super().prepare(record)
        prepared.__dict__["about"] = current()
        return prepared

    def emit(self, record: logging.LogRecord) -> None:
        if "run" in current():
            super().emit(record)


class _IntoRecord(logging.Handler):
    def __init__(self, database: Database, worker_id: int) -> None:
        super().__init__()
        self._database = database
        self._worker_id = worker_id

    def emit(self, record: logging.LogRecord) -> None:
        about: dict[str, int | str] = record.__dict__["about"]
        try:
            with self._database.session() as session:
                run_events.add_event(
                    session,
                    int(about["run"]),
                    record.getMessage(),
                    level=record.levelname.lower(),
                    stage=str(about.get("stage", "")),
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
