"""Workers in the record: they live until somebody ends them, and an ended one writes nothing more about a run."""

from __future__ import annotations

import pytest
from sqlalchemy.orm import Session

from db import run_events, runs, workers
from db.errors import IllegalTransition, TakenOver
from db.models import RunStatus, TrainingRun, Worker
from db.session import Database
from tests.builders import add_version


def register(session: Session, name: str) -> Worker:
    return workers.register(session, name, "host", 1, ["train"])


def open_run(session: Session) -> TrainingRun:
    run = runs.open_run(session, "infected", "person", {}, {})
    assert run is not None
    return run


def test_a_worker_beats_until_it_is_ended_and_only_once(database: Database) -> None:
    with database.session() as session:
        one, other = register(session, "one"), register(session, "other")
        assert workers.beat(session, one.id)
        assert workers.end(session, one.id, "died")
        assert not workers.end(session, one.id, "stopped")
        assert not workers.beat(session, one.id)
        assert [worker.id for worker in workers.living(session)] == [other.id]
        session.refresh(one)
        assert (one.beat, one.ended) == (1, "died")
        assert (workers.named(session, one.id), workers.named(session, None)) == ("one", "")


def test_a_run_is_its_workers_until_that_one_is_ended(database: Database) -> None:
    with database.session() as session:
        slow, quick, run = register(session, "slow"), register(session, "quick"), open_run(session)
        assert runs.take_up(session, run.id, slow.id).attempt == 1
        assert runs.take_up(session, run.id, slow.id).attempt == 1, "a repeated step"
        assert runs.progress(session, run.id, 1, 10, worker_id=slow.id)
        workers.end(session, slow.id, "died")
        with pytest.raises(TakenOver, match="another one has taken it over"):
            runs.progress(session, run.id, 2, 10, worker_id=slow.id)
        with pytest.raises(TakenOver, match="taken for dead"):
            runs.take_up(session, run.id, slow.id)
        assert runs.take_up(session, run.id, quick.id).attempt == 2
        version_id = add_version(session).id
        for late in (
            lambda: runs.finish(session, run.id, version_id, worker_id=slow.id),
            lambda: runs.fail(session, run.id, "late", worker_id=slow.id),
            lambda: runs.enter_stage(session, run.id, "promote", slow.id),
            lambda: runs.set_checkpoint(session, run.id, "0" * 64, slow.id),
        ):
            with pytest.raises(TakenOver):
                late()
        assert runs.set_checkpoint(session, run.id, "1" * 64, quick.id) is None
        assert runs.set_checkpoint(session, run.id, "2" * 64, quick.id) == "1" * 64
        runs.finish(session, run.id, version_id, worker_id=quick.id)
        assert runs.take_up(session, run.id, quick.id).status is RunStatus.succeeded


def test_a_retried_run_learns_the_same_from_the_same_checkpoint(database: Database) -> None:
    with database.session() as session:
        worker, first = register(session, "one"), open_run(session)
        with pytest.raises(IllegalTransition, match="queued"):
            runs.retry(session, first.id, "impatience")
        runs.take_up(session, first.id, worker.id)
        runs.set_checkpoint(session, first.id, "1" * 64, worker.id)
        runs.fail(session, first.id, "the GPU fell off the bus", worker_id=worker.id)
        second = runs.retry(session, first.id, "a new GPU")
        assert second is not None
        assert (second.retry_of, second.checkpoint_sha256) == (first.id, "1" * 64)
        assert second.newest_revision_id == first.newest_revision_id
        assert runs.retry(session, first.id, "again") is None, "one is open"
        runs.cancel(session, second.id)
        third = runs.retry(session, second.id, "after all")
        assert third is not None
        assert third.retry_of == first.id, "the checkpoints are the first one's"


def test_a_log_is_read_on_and_tells_how_long_the_rest_took(database: Database) -> None:
    with database.session() as session:
        assert run_events.seconds_after(session, "infected", "train") is None
        run = open_run(session)
        for stage in ("snapshot", "train", "train", "evaluate"):
            run_events.add_event(session, run.id, "begins", level=run_events.STAGE, stage=stage)
        last = run_events.add_event(session, run.id, "careful", level="warning", stage="evaluate")
        assert [event.message for event in run_events.events(session, run.id, after=last.id - 1)] == ["careful"]
        assert [event.id for event in run_events.events(session, run.id, limit=1)] == [last.id]
        runs.start_run(session, run.id)
        runs.finish(session, run.id, add_version(session).id)
        rest = run_events.seconds_after(session, "infected", "train")
        assert rest is not None
        assert 0 <= rest < 60
