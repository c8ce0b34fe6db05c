"""Training runs: one at a time per role, each step legal, a cancelled one told to stop."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from db import evaluations, runs
from db.errors import IllegalTransition, NotFound
from db.evaluations import MetricRow
from db.models import RUN_TRANSITIONS, RunStatus, TrainingRun
from db.session import Database
from tests.builders import NOBODY, add_active_pair, add_cell, add_image, add_version, say


def open_run(session: Session, role: str = "infected") -> TrainingRun:
    run = runs.open_run(session, role, "reviews", {"ring": 5}, {"epochs": 1})
    assert run is not None
    return run


def test_one_run_per_role_is_open(database: Database) -> None:
    with database.session() as session:
        first = open_run(session)
        assert runs.open_run(session, "infected", "person", {}, {}) is None
        other = open_run(session, "all_cells")
        runs.start_run(session, first.id, steps=10)
        assert runs.open_run(session, "infected", "person", {}, {}) is None
        runs.fail(session, first.id, "out of memory")
        second = open_run(session)
        assert runs.open_of(session, "infected") is second
        assert runs.latest(session, "infected") is second
        assert runs.latest(session, "infected", RunStatus.failed) is first
        assert runs.latest(session, "infected", RunStatus.succeeded) is None
        assert runs.runs(session) == [first, other, second]


def test_four_threads_asking_at_once_open_one_run(database: Database) -> None:
    def ask(_worker: int) -> bool:
        with database.session() as session:
            return runs.open_run(session, "infected", "person", {}, {}) is not None

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(ask, range(4))) == [False, False, False, True]


def test_the_engine_itself_allows_one_open_run_per_role(database: Database) -> None:
    with database.session() as session:
        open_run(session)
    row = TrainingRun(role="infected", trigger="person", detail={}, config={}, newest_revision_id=0)
    with pytest.raises(IntegrityError), database.session() as session:
        session.add(row)


def test_a_run_remembers_which_labels_it_is_for(database: Database) -> None:
    with database.session() as session:
        assert open_run(session, "all_cells").newest_revision_id == 0
        newest = say(session, add_cell(session, add_image(session)), "ring")
        assert open_run(session).newest_revision_id == newest


def test_a_run_from_start_to_end(database: Database) -> None:
    with database.session() as session:
        run_id, version_id = open_run(session).id, add_version(session).id
    with database.session() as session:
        runs.start_run(session, run_id, steps=10)
    with database.session() as session:
        assert runs.progress(session, run_id, 3, 10, "loss 0.7")
    with database.session() as session:
        run = runs.get(session, run_id)
        assert (run.status.value, run.step, run.steps, run.message) == ("running", 3, 10, "loss 0.7")
        assert run.finished_at is None
    with database.session() as session:
        runs.finish(session, run_id, version_id)
    with database.session() as session:
        run = runs.get(session, run_id)
        assert (run.status.value, run.version_id) == ("succeeded", version_id)
        assert run.finished_at is not None
        assert run.finished_at >= run.created_at


def test_progress_is_seen_by_a_session_that_holds_the_run(database: Database) -> None:
    with database.session() as session:
        run = runs.start_run(session, open_run(session).id)
        runs.progress(session, run.id, 4, 9)
        assert (run.step, run.steps) == (4, 9)


def test_a_cancelled_run_is_told_to_stop(database: Database) -> None:
    with database.session() as session:
        run = open_run(session)
        assert not runs.progress(session, run.id, 1, 10)  # not started
        runs.start_run(session, run.id)
        assert runs.progress(session, run.id, 1, 10)
        runs.cancel(session, run.id, "a person asked")
        assert not runs.progress(session, run.id, 2, 10)
        assert (run.step, run.message) == (1, "a person asked")


def take(session: Session, run_id: int, status: RunStatus, version_id: int) -> None:
    if status is RunStatus.running:
        runs.start_run(session, run_id)
    elif status is RunStatus.succeeded:
        runs.finish(session, run_id, version_id)
    elif status is RunStatus.failed:
        runs.fail(session, run_id, "why")
    else:
        runs.cancel(session, run_id)


@pytest.mark.parametrize("after", [status for status in RunStatus if status is not RunStatus.queued])
@pytest.mark.parametrize("before", RunStatus)
def test_only_listed_steps_are_taken(sqlite_database: Database, before: RunStatus, after: RunStatus) -> None:
    with sqlite_database.session() as session:
        run, version = open_run(session), add_version(session)
        run.status = before
        session.flush()
        if after is before or after in RUN_TRANSITIONS[before]:
            take(session, run.id, after, version.id)
            assert run.status is after
        else:
            with pytest.raises(IllegalTransition, match=f"is {before.value}: expected a step to"):
                take(session, run.id, after, version.id)
            assert run.status is before


def test_a_repeated_step_changes_nothing(database: Database) -> None:
    with database.session() as session:
        run = open_run(session)
        runs.fail(session, run.id, "first")
        finished = run.finished_at
        runs.fail(session, run.id, "second")
        assert (run.error, run.finished_at) == ("first", finished)


def test_an_unknown_run_is_named(database: Database) -> None:
    with database.session() as session, pytest.raises(NotFound, match=str(NOBODY)):
        runs.start_run(session, NOBODY)


def test_numbers_come_back_by_name_and_class(database: Database) -> None:
    rows = [
        MetricRow("infected_ap50", 0.5, 40, low=0.4, high=0.6),
        MetricRow("ap50", 0.25, 12, class_name="ring"),
        MetricRow("ap50", float("nan"), 0, class_name="schizont", low=float("nan")),
    ]
    with database.session() as session:
        pair = add_active_pair(session)
        stored = evaluations.add_evaluation(session, pair.id, "test", "f" * 64, {"images": 3}, rows)
    with database.session() as session:
        assert evaluations.metrics_of(session, stored.id) == {
            ("infected_ap50", ""): rows[0],
            ("ap50", "ring"): rows[1],
            ("ap50", "schizont"): MetricRow("ap50", None, 0, class_name="schizont"),
        }
        found = evaluations.evaluation_of(session, pair.id, "f" * 64)
        assert found is not None
        assert (found.id, found.report, found.split) == (stored.id, {"images": 3}, "test")
        assert evaluations.evaluation_of(session, pair.id, "0" * 64) is None
        assert evaluations.reliability_of(session, stored.id) == {}  # stored before there were curves


def test_curves_come_back_without_the_report(database: Database) -> None:
    curves = {"infected": {"claimed": [0.1, 0.9], "observed": [0.0, 1.0], "n": [20.0, 10.0]}}
    with database.session() as session:
        pair = add_active_pair(session)
        report = {"matches": {"ring": {"scores": [0.5]}}, "reliability": curves}
        stored = evaluations.add_evaluation(session, pair.id, "test", "f" * 64, report, [])
    with database.session(read_only=True) as session:
        assert evaluations.reliability_of(session, stored.id) == curves
        with pytest.raises(NotFound, match=str(NOBODY)):
            evaluations.reliability_of(session, NOBODY)
