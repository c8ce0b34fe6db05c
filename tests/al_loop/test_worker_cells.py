"""The worker with both projects: an answer about a cell comes in, and what follows goes out to both."""

from __future__ import annotations

from pathlib import Path

from al_loop.jobs import durable
from al_loop.push_answers import REVIEWED
from al_loop.worker import Worker
from backend.label_studio.cell_config import ORDER
from db import assignments
from db.session import Database
from tests.al_loop.cell_workshop import answer_next, cells_project, entries_of, open_cells, pool, push_both, queue_up
from tests.al_loop.test_worker import receive, settle, tick_until
from tests.al_loop.workshop import said


def test_a_cells_answer_comes_in_and_its_field_shows_it(tmp_path: Path, sqlite_database: Database) -> None:
    workshop = open_cells(tmp_path, sqlite_database, poll_s=0.05, retrain_after=1e9, retrain_cooldown_s=0)
    with durable(workshop):
        worker = Worker(workshop)
        settle(worker)
        items = queue_up(workshop, entries_of(workshop, pool(workshop)[0]))
        with sqlite_database.session() as session:
            for item in items:  # whatever a ranking thinks of it meanwhile
                assert assignments.hold(session, item.id, "label studio")
        push_both(workshop)
        answer_next(workshop, "schizont")
        receive(workshop, "ANNOTATION_CREATED")
        tick_until(worker, lambda: said(workshop) == {("schizont", (20, 20, 60, 60))}, "the answer")

        def shown() -> bool:
            held = [p for p in workshop.fake.predictions.values() if p.model_version != ORDER]
            return any(r.get("meta") == {"text": [REVIEWED]} for p in held for r in p.result)

        tick_until(worker, shown, "the answer in its field")
        for _ in range(3):
            worker.tick()
        assert worker._following is None, "both projects have what they need"
        assert cells_project(workshop).synced_until is not None
