"""Cron times, drift and people: whatever calls, one run answers, on any number of machines."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from al_loop.reschedule import reschedule
from al_loop.trigger import ask_for_retraining, open_when_due, trigger_config
from backend.errors import SettingRefused
from db import drift, runs, schedules
from db.models import RunStatus, TrainingRun
from db.session import Database
from tests.al_loop.workshop import Workshop, open_workshop
from tests.builders import add_active_pair, add_cell, add_image, add_version, at, dated, say

# builders.at(0) is noon; the schedule is set then.
NIGHT = at(15 * 60)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def scheduled(home: Path, database: Database, **changes: object) -> Workshop:
    """An installation with a schedule since noon."""
    workshop = open_workshop(home, database)
    with database.session() as session, dated(session, at(0)):
        row = {"retrain_after": None, "cron": None, "on_drift": False, "cooldown_s": 0.0, "set_by": "ada", **changes}
        schedules.add_schedule(session, "infected", **row)  # type: ignore[arg-type]
    return workshop


def label(database: Database, moment: datetime, word: str = "ring") -> None:
    """An expert's new label, recorded at this moment."""
    with database.session() as session, dated(session, moment):
        image = add_image(session)
        say(session, add_cell(session, image), word, f"ls:1:{image.id}")


def end(database: Database, run_id: int, moment: datetime, status: RunStatus = RunStatus.succeeded) -> None:
    """The run is over at this moment."""
    with database.session() as session:
        runs.start_run(session, run_id)
        if status is RunStatus.succeeded:
            run = runs.finish(session, run_id, add_version(session).id)
        else:
            run = runs.fail(session, run_id, "for a test")
        run.finished_at = moment


def the_run(database: Database, run_id: int | None) -> TrainingRun:
    assert run_id is not None
    with database.session(read_only=True) as session:
        return runs.get(session, run_id)


def test_a_cron_time_fires_once_even_if_the_clock_jumps_back(tmp_path: Path, database: Database) -> None:
    workshop = scheduled(tmp_path, database, cron="0 3 * * *")
    label(database, at(1))
    assert open_when_due(workshop, "infected", NIGHT - timedelta(seconds=1)) is None
    run = the_run(database, open_when_due(workshop, "infected", NIGHT))
    assert (run.trigger, run.detail["triggers"]) == ("cron", ["cron"])
    end(database, run.id, NIGHT + HOUR / 2, RunStatus.failed)  # its labels are not used up
    for moment in (NIGHT + HOUR, NIGHT - HOUR / 2, NIGHT, NIGHT + HOUR, NIGHT + DAY - HOUR):
        assert open_when_due(workshop, "infected", moment) is None
    assert open_when_due(workshop, "infected", NIGHT + DAY) is not None


def test_times_that_nobody_answered_fire_once_and_those_before_the_schedule_never(
    tmp_path: Path, sqlite_database: Database
) -> None:
    workshop = scheduled(tmp_path, sqlite_database, cron="0 3 * * *")
    label(sqlite_database, at(-60))
    assert open_when_due(workshop, "infected", at(60)) is None, "last night's time came before it was set"
    run = the_run(sqlite_database, open_when_due(workshop, "infected", NIGHT + 3 * DAY + HOUR))
    assert run.detail["cron"]["time"] == (NIGHT + 3 * DAY).isoformat()
    end(sqlite_database, run.id, NIGHT + 3 * DAY + 2 * HOUR, RunStatus.failed)
    assert open_when_due(workshop, "infected", NIGHT + 4 * DAY - HOUR) is None


def test_a_night_without_new_labels_passes(tmp_path: Path, sqlite_database: Database) -> None:
    workshop = scheduled(tmp_path, sqlite_database, cron="0 3 * * *")
    label(sqlite_database, NIGHT + HOUR)
    assert open_when_due(workshop, "infected", NIGHT + 2 * HOUR) is None, "the label came after the time"
    run = the_run(sqlite_database, open_when_due(workshop, "infected", NIGHT + DAY))
    end(sqlite_database, run.id, NIGHT + DAY + HOUR)
    assert open_when_due(workshop, "infected", NIGHT + 2 * DAY) is None, "nothing new since that training"


def test_simultaneous_calls_give_one_run_that_names_them_all(tmp_path: Path, database: Database) -> None:
    workshop = scheduled(tmp_path, database, cron="0 3 * * *", retrain_after=2.0, on_drift=True)
    label(database, at(1))
    with database.session() as session:
        pair = add_active_pair(session)
        check = drift.add_check(session, pair.id, drifted=True, reasons=["stain: darker"], numbers={})
    run = the_run(database, ask_for_retraining(workshop, "a new microscope", at=NIGHT))
    assert run.detail["triggers"] == ["person", "reviews", "cron", "drift"]
    assert run.detail["person"] == {"why": "a new microscope"}
    assert run.detail["reviews"]["weighted"] == 2.0
    assert run.detail["drift"] == {"check": check.id, "reasons": ["stain: darker"]}
    end(database, run.id, NIGHT, RunStatus.succeeded)
    label(database, NIGHT + HOUR, "red blood cell")
    assert open_when_due(workshop, "infected", NIGHT + 2 * HOUR) is None, "all of it is answered"


def test_what_calls_while_a_run_is_open_is_noted_there_once(tmp_path: Path, database: Database) -> None:
    workshop = scheduled(tmp_path, database, cron="0 3 * * *", on_drift=True)
    label(database, at(1))
    run_id = ask_for_retraining(workshop, "first", at=at(2))
    assert run_id is not None
    with database.session() as session:
        drift.add_check(session, add_active_pair(session).id, drifted=True, reasons=["more disputes"], numbers={})
    for _ in range(3):
        assert open_when_due(workshop, "infected", NIGHT) is None
    assert ask_for_retraining(workshop, "impatience", at=NIGHT + HOUR) is None
    meanwhile = the_run(database, run_id).detail["meanwhile"]
    assert [sorted(call) for call in meanwhile] == [["at", "cron", "drift"], ["at", "person"]]
    end(database, run_id, NIGHT + HOUR)
    label(database, NIGHT + 2 * HOUR)
    assert open_when_due(workshop, "infected", NIGHT + 3 * HOUR) is None


def test_a_cooldown_keeps_what_calls_by_itself_waiting_but_no_person(tmp_path: Path, sqlite_database: Database) -> None:
    workshop = scheduled(tmp_path, sqlite_database, cron="0 3 * * *", cooldown_s=7200.0)
    label(sqlite_database, at(1))
    end(sqlite_database, ask_for_retraining(workshop, "now", at=at(2)) or 0, NIGHT - HOUR)
    label(sqlite_database, NIGHT - HOUR / 2)
    assert open_when_due(workshop, "infected", NIGHT + HOUR / 2) is None
    by_person = ask_for_retraining(workshop, "at once", at=NIGHT + HOUR / 2)
    assert the_run(sqlite_database, by_person).detail["triggers"] == ["person", "cron"]


@pytest.mark.parametrize("drifted", [True, False])
def test_drift_calls_once_it_has_labels_to_learn_from(tmp_path: Path, sqlite_database: Database, drifted: bool) -> None:
    workshop = scheduled(tmp_path, sqlite_database, on_drift=True)
    with sqlite_database.session() as session:
        pair_id = add_active_pair(session).id
        drift.add_check(session, pair_id, drifted=drifted, reasons=["scores: lower"], numbers={})
    assert open_when_due(workshop, "infected", at(1)) is None
    label(sqlite_database, at(2), "red blood cell")
    run_id = open_when_due(workshop, "infected", at(3))
    assert (run_id is not None) == drifted
    if run_id is not None:
        end(sqlite_database, run_id, at(4), RunStatus.failed)
        assert open_when_due(workshop, "infected", at(5)) is None, "answered, although the run failed"
        with sqlite_database.session() as session:
            drift.add_check(session, pair_id, drifted=False, reasons=[], numbers={})
        assert open_when_due(workshop, "infected", at(6)) is None, "the newest check counts"


def test_two_workers_at_the_same_moment_open_one_run(tmp_path: Path, database: Database, database_url: str) -> None:
    """Two machines, each with its own connections, that find the same cron time due."""
    other = Database(database_url)
    workshop = scheduled(tmp_path, database, cron="0 3 * * *")
    label(database, at(1))
    opened: list[int | None] = []
    for night in range(4):
        moment, barrier = NIGHT + night * DAY, threading.Barrier(2)

        def ask(mine: Database, moment: datetime = moment, barrier: threading.Barrier = barrier) -> None:
            loop = Workshop(workshop.settings, mine, workshop.store, workshop.credentials, workshop.fake)
            barrier.wait(10)
            run_id = open_when_due(loop, "infected", moment)
            if run_id is not None:  # it fails within the moment: the other must not find its cron time unanswered
                end(mine, run_id, moment, RunStatus.failed)
            opened.append(run_id)

        threads = [threading.Thread(target=ask, args=(mine,)) for mine in (database, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    other.dispose()
    with database.session(read_only=True) as session:
        assert len(runs.runs(session)) == 4
    assert sorted(run_id is None for run_id in opened) == [False] * 4 + [True] * 4


def test_before_anybody_said_otherwise_the_settings_count_and_changes_keep_the_rest(
    tmp_path: Path, database: Database
) -> None:
    workshop = open_workshop(tmp_path, database, retrain_after=7.0, retrain_cooldown_s=5.0)
    with database.session(read_only=True) as session:
        config = trigger_config(session, workshop.settings, "infected")
        assert (config.threshold, config.cooldown_s, config.cron, config.on_drift) == (7.0, 5.0, None, True)
        config = trigger_config(session, workshop.settings, "all_cells")
        assert (config.threshold, config.cron, config.on_drift) == (None, None, False)
    reschedule(workshop, "infected", {"cron": " 0  3 * * *"}, "ada")
    reschedule(workshop, "infected", {"threshold": None, "on_drift": False}, "ben")
    with database.session(read_only=True) as session:
        config = trigger_config(session, workshop.settings, "infected")
        assert (config.threshold, config.cooldown_s, config.cron, config.on_drift) == (None, 5.0, "0 3 * * *", False)
    for wrong in ({"threshold": 0.0}, {"cooldown_s": -1.0}, {"threshold": float("nan")}, {"cron": "3"}):
        with pytest.raises(SettingRefused, match="expected"):
            reschedule(workshop, "infected", wrong, "ada")
