"""When reviewed cells are enough for a retraining."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from al_loop.retrain import training_config
from al_loop.trigger import TriggerConfig, ask_for_retraining, cooled_down, due, trained_until, weighted_count
from db import labels, runs
from db.models import Action, RunStatus, TrainingRun
from db.session import Database
from tests.al_loop.workshop import open_workshop
from tests.builders import add_cell, add_image, add_version, at, say

EAGER = TriggerConfig(threshold=3.0, cooldown_s=0.0)


def review(session: Session, *names: str, **changes: object) -> None:
    """One new cell of each of these classes, answered by an expert."""
    image = add_image(session)
    for number, label in enumerate(names):
        say(session, add_cell(session, image), label, f"ls:1:{image.id}{number:03d}", **changes)  # type: ignore[arg-type]


def ended(session: Session, status: RunStatus, minute: float = 0) -> TrainingRun:
    """A run on everything recorded so far that ended like this."""
    run = runs.open_run(session, "infected", "reviews", {}, {})
    assert run is not None
    if status is not RunStatus.cancelled:
        runs.start_run(session, run.id)
    if status is RunStatus.succeeded:
        runs.finish(session, run.id, add_version(session).id)
    elif status is RunStatus.failed:
        runs.fail(session, run.id, "NotEnoughData: for a test")
    else:
        runs.cancel(session, run.id)
    run.finished_at = at(minute)
    session.flush()
    return run


def test_rare_stages_count_more_and_what_is_not_infected_nothing() -> None:
    config = TriggerConfig()
    counts = {"trophozoite": 4, "ring": 3, "schizont": 2, "gametocyte": 1, "difficult": 2, "red blood cell": 500}
    assert weighted_count(counts, config) == 4 + 6 + 6 + 3 + 1
    assert weighted_count({}, config) == 0


def test_due_when_the_weights_of_new_cells_reach_the_threshold(database: Database) -> None:
    with database.session() as session:
        review(session, "ring", "difficult", "red blood cell", "leukocyte")
        assert due(session, "infected", EAGER) is None  # 2.5
        review(session, "difficult")
        reason = due(session, "infected", EAGER)
        assert reason is not None
        assert (reason["reviews"]["weighted"], reason["reviews"]["threshold"]) == (3.0, 3.0)
        assert {k: n for k, n in reason["reviews"]["new_cells"].items() if n} == {"difficult": 2, "ring": 1}


def test_a_cell_counts_once_and_as_what_it_is_called_now(sqlite_database: Database) -> None:
    with sqlite_database.session() as session:
        cell = add_cell(session, add_image(session))
        for minute, label in enumerate(["schizont", "ring", "trophozoite", "gametocyte", "ring"]):
            say(session, cell, label, minute=minute)
        say(session, cell, "ring", "ls:1:2", 9, expert="ben@example.org")
        assert due(session, "infected", EAGER) is None
        assert {k: n for k, n in labels.new_infected_since(session, 0).items() if n} == {"ring": 1}


def test_imported_and_taken_back_labels_do_not_count(sqlite_database: Database) -> None:
    with sqlite_database.session() as session:
        review(session, *["schizont"] * 5, action=Action.imported, expert="import")
        image = add_image(session)
        for number in range(5):
            cell = add_cell(session, image)
            say(session, cell, "schizont", f"ls:1:9{number}")
            say(session, cell, None, f"ls:1:9{number}", 1, action=Action.withdrawn if number % 2 else Action.deleted)
        assert due(session, "infected", EAGER) is None


def test_labels_a_run_was_opened_with_are_used_up_and_later_ones_count_for_the_next(database: Database) -> None:
    with database.session() as session:
        review(session, "schizont")
        run = runs.open_run(session, "infected", "reviews", {}, {})
        assert run is not None
        review(session, "schizont", "ring")  # while it trains
        assert due(session, "infected", EAGER) is None, "one at a time"
        runs.start_run(session, run.id)
        assert due(session, "infected", EAGER) is None
        runs.finish(session, run.id, add_version(session).id)
        assert trained_until(session, "infected") == run.newest_revision_id
        reason = due(session, "infected", EAGER)
        assert reason is not None
        assert reason["reviews"]["weighted"] == 5.0


@pytest.mark.parametrize("status", [RunStatus.failed, RunStatus.cancelled])
def test_a_run_that_did_not_end_well_cools_down_and_uses_nothing_up(
    sqlite_database: Database, status: RunStatus
) -> None:
    with sqlite_database.session() as session:
        review(session, "schizont")
        ended(session, status)
        assert trained_until(session, "infected") == 0
        assert due(session, "infected", EAGER) is not None
        run = runs.latest(session, "infected")
        assert run is not None
        hour = TriggerConfig(threshold=3.0, cooldown_s=3600.0)
        assert not cooled_down(run, hour, at(59))
        assert cooled_down(run, hour, at(60))
        run.finished_at = at(0) + timedelta(days=365_000)
        session.flush()
        assert due(session, "infected", hour) is None


def test_the_last_run_counts_for_the_cooldown_and_only_those_of_its_role(sqlite_database: Database) -> None:
    hour = TriggerConfig(threshold=3.0, cooldown_s=3600.0)
    with sqlite_database.session() as session:
        assert cooled_down(None, hour, at(0))
        ended(session, RunStatus.succeeded, 0)
        last = ended(session, RunStatus.failed, 30)
        assert runs.latest(session, "infected") is last
        assert not cooled_down(runs.latest(session, "infected"), hour, at(70))
        assert cooled_down(runs.latest(session, "all_cells"), hour, at(70))


def test_a_person_may_ask_whatever_the_count_but_only_once(tmp_path: Path, sqlite_database: Database) -> None:
    workshop = open_workshop(tmp_path, sqlite_database, train_steps=7)
    run_id = ask_for_retraining(workshop, "new stain")
    assert run_id is not None
    assert ask_for_retraining(workshop, "impatience") is None
    with sqlite_database.session(read_only=True) as session:
        run = runs.get(session, run_id)
        assert (run.status, run.trigger) == (RunStatus.queued, "person")
        assert (run.detail["triggers"], run.detail["person"]) == (["person"], {"why": "new stain"})
        assert [call["person"]["why"] for call in run.detail["meanwhile"]] == ["impatience"]
        assert run.config["steps"] == 7
    assert training_config(workshop.settings, "infected").rare_share == 0.65
