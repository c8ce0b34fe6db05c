"""What is logged about a run is kept with it, also from the middle of a transaction."""

from __future__ import annotations

import logging

from al_loop.run_log import logged_runs
from backend.logs import about
from db import run_events, runs, workers
from db.session import Database


def test_lines_about_a_run_are_kept_and_others_are_not(database: Database) -> None:
    log = logging.getLogger("cellloop.test")
    with database.session() as session:
        run = runs.open_run(session, "infected", "person", {}, {})
        assert run is not None
        worker_id = workers.register(session, "one", "host", 1, ["train"]).id
    with logged_runs(database, worker_id):
        log.info("about nothing")
        with about(run=run.id, stage="train"), database.session() as session:
            runs.start_run(session, run.id)
            log.warning("%d cells are left out", 3)
            log.debug("too much")
        with about(run=run.id):
            log.info("between stages")
    log.info("too late")
    with database.session(read_only=True) as session:
        said = [(e.worker_id, e.stage, e.level, e.message) for e in run_events.events(session, run.id)]
    assert said == [
        (worker_id, "train", "warning", "3 cells are left out"),
        (worker_id, "", "info", "between stages"),
    ]
