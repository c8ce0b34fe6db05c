"""Schedules, and calls for a retraining that are answered once."""

from __future__ import annotations

import threading

from db import runs, schedules
from db.models import Split
from db.session import Database
from tests.builders import add_cell, add_image, at, dated, say

ROW = {"retrain_after": 25.0, "cron": "0 3 * * *", "on_drift": True, "cooldown_s": 60.0, "set_by": "ada"}


def test_the_newest_row_of_a_role_counts(database: Database) -> None:
    with database.session() as session:
        assert schedules.schedule_of(session, "infected") is None
        for after in (10.0, None):
            schedules.add_schedule(session, "infected", **{**ROW, "retrain_after": after})
        schedules.add_schedule(session, "all_cells", **ROW)
        row = schedules.schedule_of(session, "infected")
        assert row is not None
        assert (row.retrain_after, row.cron, row.set_by) == (None, "0 3 * * *", "ada")


def test_cron_times_count_since_they_were_set_and_other_changes_do_not_matter(database: Database) -> None:
    changes = [("0 3 * * *", 60.0), ("0 4 * * *", 60.0), ("0 3 * * *", 60.0), ("0 3 * * *", 7.0), (None, 7.0)]
    since = []
    with database.session() as session:
        for minute, (cron, cooldown) in enumerate(changes):
            with dated(session, at(minute)):
                schedules.add_schedule(session, "infected", **{**ROW, "cron": cron, "cooldown_s": cooldown})
            since.append(schedules.cron_since(session, "infected"))
    assert since == [at(0), at(1), at(2), at(2), None]


def opened(database: Database, calls: schedules.Calls) -> int | None:
    with database.session() as session:
        run = runs.open_run(session, "infected", next(iter(calls)), schedules.detail_of(calls), {})
        return None if run is None else run.id


def test_runs_know_what_was_answered_however_they_ended(database: Database) -> None:
    calls: schedules.Calls = {"cron": {"time": at(0).isoformat(), "cron": "x"}, "drift": {"check": 11, "reasons": []}}
    run_id = opened(database, calls)
    assert run_id is not None
    with database.session() as session:
        schedules.note_calls(session, run_id, {"cron": {"time": at(60).isoformat(), "cron": "x"}}, at(61))
        schedules.note_calls(session, run_id, {"person": {"why": "impatience"}}, at(62))
        runs.fail(session, run_id, "for a test")
    opened(database, {"person": {"why": "again"}})
    with database.session(read_only=True) as session:
        assert schedules.last_cron_time(session, "infected") == at(60)
        assert schedules.last_drift_check(session, "infected") == 11
        assert schedules.last_cron_time(session, "all_cells") is None
        assert schedules.last_drift_check(session, "all_cells") == 0
        run = runs.get(session, run_id)
        assert run.detail["triggers"] == ["cron", "drift"]
        assert run.detail["cron"]["time"] == at(0).isoformat(), "what it was opened for stays"
        assert [sorted(call) for call in run.detail["meanwhile"]] == [["at", "cron"], ["at", "person"]]


def test_only_labels_to_train_on_count_and_only_those_recorded_by_then(database: Database) -> None:
    with database.session() as session:
        with dated(session, at(10)):
            ruler = say(session, add_cell(session, add_image(session, split=Split.test)), "ring")
            assert not schedules.has_labels_since(session, 0)
            revision = say(session, add_cell(session, add_image(session)), "ring", "ls:1:2")
        assert ruler < revision
        assert schedules.has_labels_since(session, 0)
        assert not schedules.has_labels_since(session, revision)
        assert schedules.has_labels_since(session, 0, at(10))
        assert not schedules.has_labels_since(session, 0, at(9))


def test_who_decides_about_a_roles_runs_is_alone_until_the_end(database: Database) -> None:
    """A worker that looked a moment ago must not open another run for what is answered and has failed since."""
    order: list[str] = []
    entered, arrived = threading.Event(), threading.Event()

    def second() -> None:
        assert entered.wait(10)
        arrived.set()
        with database.session() as session:
            schedules.hold(session, "infected")
            order.append("second")
            seen = len(runs.runs(session))
        order.append(f"saw {seen}")

    thread = threading.Thread(target=second)
    thread.start()
    with database.session() as session:
        schedules.hold(session, "infected")
        entered.set()
        assert arrived.wait(10)
        run = runs.open_run(session, "infected", "cron", {}, {})
        assert run is not None
        runs.fail(session, run.id, "at once")
        thread.join(0.2)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second", "saw 1"]
