"""What one tick of the worker does, beside a Label Studio in memory."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from al_loop.jobs import durable
from al_loop.worker import Worker, clear_away
from backend.label_studio.protocol import START_TRAINING
from backend.preannotate import Pair
from backend.serving import PairCache, Served, active_pair
from db import inbox, predictions, projects, queue, runs, versions
from db.models import RunStatus, now
from db.session import Database
from tests import builders
from tests.al_loop.deciding import undo
from tests.al_loop.test_preannotate_pool import add_smears
from tests.al_loop.workshop import Workshop, add_pool, new_pair, predict, pushed_workshop, said, submit_next
from tests.backend.smears import DiscDetector

POLL_S = 0.05


@pytest.fixture
def workshop(tmp_path: Path, sqlite_database: Database) -> Workshop:
    return pushed_workshop(tmp_path, sqlite_database, 3, poll_s=POLL_S, retrain_after=1e9, retrain_cooldown_s=0)


@pytest.fixture
def worker(workshop: Workshop) -> Iterator[Worker]:
    with durable(workshop):
        yield Worker(workshop)


def tick_until(worker: Worker, condition: Callable[[], bool], what: str, timeout_s: float = 60) -> None:
    """Tick until the condition holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s} s"
        worker.tick()
        time.sleep(0.01)


def settle(worker: Worker) -> None:
    """Tick until Label Studio shows what serves: every worker begins with that."""
    tick_until(worker, lambda: bool(worker._shown) and worker._following is None, "following the pair")
    worker.tick()


def receive(workshop: Workshop, action: str) -> None:
    with workshop.database.session() as session:
        inbox.receive(session, action, {})


def unhandled(workshop: Workshop) -> int:
    with workshop.database.session(read_only=True) as session:
        return len(inbox.unhandled(session))


def serving_version(workshop: Workshop) -> str | None:
    return workshop.fake.stored_projects[workshop.project.ls_project_id].model_version


def test_a_review_comes_in_and_the_order_goes_out(workshop: Workshop, worker: Worker) -> None:
    annotation = submit_next(workshop)
    receive(workshop, "ANNOTATION_CREATED")
    worker.tick()
    assert len(said(workshop)) == 3
    assert unhandled(workshop) == 0
    with workshop.database.session(read_only=True) as session:
        assert len(queue.pending(session)) == 2
    workshop.expert.delete(annotation.id)
    tick_until(worker, lambda: said(workshop) == set(), "the deletion, by polling")
    with workshop.database.session(read_only=True) as session:
        assert len(queue.pending(session)) == 3, "its image waits again"


def test_while_label_studio_is_away_there_is_one_warning_and_nothing_is_lost(
    workshop: Workshop, worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    settle(worker)
    submit_next(workshop)
    workshop.fake.down = True
    receive(workshop, "ANNOTATION_CREATED")
    with caplog.at_level(logging.WARNING, "cellloop.worker"):
        deadline = time.monotonic() + 6 * POLL_S
        calls = len(workshop.fake.calls)
        while time.monotonic() < deadline:
            worker.tick()
        warned = [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert [record.name for record in warned] == ["cellloop.worker"], caplog.text
        assert "nothing is lost" in caplog.text
    assert len(workshop.fake.calls) - calls <= 8, "asked every poll_s, not at every tick"
    assert said(workshop) == set()
    workshop.fake.down = False
    tick_until(worker, lambda: len(said(workshop)) == 3, "the review")
    tick_until(worker, lambda: unhandled(workshop) == 0, "the inbox")


def test_an_order_that_could_not_be_pushed_follows(workshop: Workshop, worker: Worker) -> None:
    settle(worker)
    fake = workshop.fake
    submit_next(workshop)
    receive(workshop, "ANNOTATION_CREATED")
    late = add_pool(workshop, 1)
    pair = active_pair(workshop.database)
    assert pair is not None
    predict(workshop, pair.id, late)
    fake.on_call = lambda name: setattr(fake, "down", name == "import_tasks")
    tick_until(worker, lambda: len(said(workshop)) == 3, "the review")
    assert len(fake.tasks) == 3
    fake.on_call = lambda name: None
    fake.down = False
    tick_until(worker, lambda: len(fake.tasks) == 4, "the task that could not be imported")
    assert len(fake.of_version(pair.name)) == 4


def test_a_deleted_task_that_nobody_had_answered_comes_back(workshop: Workshop, worker: Worker) -> None:
    settle(worker)
    fake = workshop.fake
    deleted = min(fake.tasks)
    fake.delete_task(deleted)
    tick_until(worker, lambda: len(fake.tasks) == 3, "another task")
    assert deleted not in fake.tasks
    assert {prediction.task for prediction in fake.predictions.values()} >= set(fake.tasks)


def test_start_training_opens_one_run(workshop: Workshop, worker: Worker) -> None:
    for _ in range(3):
        receive(workshop, START_TRAINING)
    worker.tick()
    assert unhandled(workshop) == 0

    def ended() -> bool:
        with workshop.database.session(read_only=True) as session:
            return runs.open_of(session, "infected") is None

    tick_until(worker, ended, "the end of the run")
    with workshop.database.session(read_only=True) as session:
        [run] = runs.runs(session)
    assert (run.trigger, run.status) == ("label-studio", RunStatus.failed)
    assert run.error, "three images without labels are not enough, and it says so"
    submit_next(workshop)
    tick_until(worker, lambda: len(said(workshop)) == 3, "a review after a failed run")


def test_enough_reviews_open_a_run_that_says_why(tmp_path: Path, sqlite_database: Database) -> None:
    workshop = pushed_workshop(tmp_path, sqlite_database, 2, poll_s=POLL_S, retrain_after=2, retrain_cooldown_s=3600)
    with durable(workshop):
        worker = Worker(workshop)
        with sqlite_database.session() as session:
            builders.say(session, builders.add_cell(session, builders.add_image(session)), "schizont")
        worker.tick()
        with sqlite_database.session(read_only=True) as session:
            [run] = runs.runs(session)
            assert (run.trigger, run.detail["reviews"]["weighted"]) == ("reviews", 3.0)

        def ended() -> bool:
            with sqlite_database.session(read_only=True) as session:
                return runs.open_of(session, "infected") is None

        tick_until(worker, ended, "the end of the run")
        worker.tick()
        with sqlite_database.session(read_only=True) as session:
            assert len(runs.runs(session)) == 1, "a failed run cools down"


def test_what_was_asked_for_is_predicted_and_pushed(workshop: Workshop, worker: Worker) -> None:
    use_discs(workshop, worker)
    smear = add_smears(workshop, 1)[0]
    with workshop.database.session() as session:
        predictions.request(session, smear.id)
    pair = active_pair(workshop.database)
    assert pair is not None
    tick_until(worker, lambda: len(workshop.fake.of_version(pair.name)) == 4, "the prediction")
    with workshop.database.session(read_only=True) as session:
        assert predictions.requests(session) == []
        task = projects.task_of(session, workshop.project.id, image_id=smear.id)
    assert task is not None
    [shown] = workshop.fake.of_version(pair.name)[task.ls_task_id]
    assert [region["value"]["rectanglelabels"] for region in shown.result] == [["ring"], ["red blood cell"]]


def discs(row: object = None) -> Pair:
    """A pair that finds discs; the versions in SQL have no weights."""
    from backend.fuse import FusionConfig

    return Pair("discs", DiscDetector("all_cells"), DiscDetector("infected"), FusionConfig())  # type: ignore[arg-type]


def use_discs(workshop: Workshop, worker: Worker) -> None:
    """The worker's own pair finds discs."""
    worker.pairs = PairCache(workshop.database, workshop.store, "cpu", discs)


def test_an_image_is_predicted_once_its_file_is_mended(
    workshop: Workshop, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PairCache, "of", lambda self, row: Served(row, discs()))
    smear = add_smears(workshop, 1)[0]
    path = workshop.store.path(smear.file)
    sound = path.read_bytes()
    path.write_bytes(sound[:100])
    tick_until(worker, lambda: worker._unreadable == {smear.id}, "the attempt")
    path.write_bytes(sound)
    tick_until(worker, lambda: not worker._unpredicted(), "the prediction")
    with workshop.database.session(read_only=True) as session:
        assert predictions.newest_prediction(session, smear.id) is not None


def test_what_a_person_asks_for_on_the_dashboard_is_trained(workshop: Workshop, worker: Worker) -> None:
    wish = {"why": "a new stain", "by": "ada"}
    with workshop.database.session() as session:
        inbox.receive(session, inbox.RETRAIN_ASKED, wish)
    worker._sync()
    with workshop.database.session() as session:
        [run] = runs.runs(session)
        assert (run.trigger, run.detail["person"]) == ("person", {"why": "a new stain (ada)"})
        assert inbox.asked(session) is None


def test_a_rollback_is_followed_and_pushed(workshop: Workshop, worker: Worker) -> None:
    with workshop.database.session(read_only=True) as session:
        pool = [task.image_id for task in projects.tasks(session, workshop.project.id)]
    old = serving_version(workshop)
    new_pair(workshop, pool)
    tick_until(worker, lambda: serving_version(workshop) != old, "the person's promotion")
    undo(workshop.database, "infected")
    tick_until(worker, lambda: serving_version(workshop) == old, "the rollback")
    with workshop.database.session(read_only=True) as session:
        ranking, pair = queue.latest_ranking(session), versions.active_pair(session)
    assert ranking is not None
    assert pair is not None
    assert (ranking.pair_id, pair.name) == (pair.id, old)
    assert len(workshop.fake.predictions) == 6, "the older predictions are used again"


def test_experts_keep_the_old_version_until_the_new_one_has_seen_the_pool(workshop: Workshop, worker: Worker) -> None:
    """A review while a new pair predicts must not switch the project to a version most tasks have nothing of."""
    settle(worker)
    with workshop.database.session(read_only=True) as session:
        pool = [task.image_id for task in projects.tasks(session, workshop.project.id)]
    old = serving_version(workshop)
    submit_next(workshop)
    with workshop.database.session() as session:
        assert runs.open_run(session, "infected", "command", {}, {}) is not None  # so that nobody follows
        runs.start_run(session, runs.runs(session)[0].id)
    pair = new_pair(workshop, pool[2:])
    receive(workshop, "ANNOTATION_CREATED")
    tick_until(worker, lambda: len(said(workshop)) == 3, "the review")
    worker.tick()
    assert serving_version(workshop) == old
    predict(workshop, pair, pool[:2])
    with workshop.database.session() as session:
        runs.fail(session, runs.runs(session)[0].id, "over")
    tick_until(worker, lambda: serving_version(workshop) != old, "the switch")


def test_rows_of_what_ended_long_ago_are_cleared_away(worker: Worker) -> None:
    settle(worker)
    assert clear_away(now() - timedelta(hours=1)) == 0
    assert clear_away(now() + timedelta(minutes=1)) >= 1, "the workflow that followed the pair"
    assert clear_away(now() + timedelta(minutes=1)) == 0
    worker.tick()


def test_projects_of_another_label_studio_are_left_alone(workshop: Workshop, worker: Worker) -> None:
    """Their ids mean something else at this one."""
    theirs = workshop.fake.create_project("of somebody else", workshop.project.label_config).id
    with workshop.database.session() as session:
        projects.upsert_project(
            session, url="http://elsewhere.test", ls_project_id=theirs, title="cellloop", label_config="<View/>"
        )
    settle(worker)
    submit_next(workshop)
    tick_until(worker, lambda: len(said(workshop)) == 3, "the review")
    assert workshop.fake.task_ids(theirs) == set()
