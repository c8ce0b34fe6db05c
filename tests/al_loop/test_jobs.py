"""Durable runs: a real worker process is killed again and again, and the run ends exactly once."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from dbos import DBOS
from sqlalchemy import create_engine, text

from al_loop import evaluate as evaluating
from al_loop.context import Loop
from al_loop.cycle import turn
from al_loop.first_models import train_here
from al_loop.import_images import import_images
from al_loop.jobs import durable, sole_worker, system_database_url
from al_loop.preannotate_pool import preannotate_pool
from al_loop.rank import rank
from al_loop.rendered import write_coco_folder
from al_loop.train import CHECKPOINT
from al_loop.trigger import ask_for_retraining
from backend.errors import WorkerRunning
from db import images, predictions, queue, runs, versions
from db.migrate import upgrade
from db.models import Evaluation, ModelVersion, PromotionDecision, RunStatus, TrainingRun, VersionStatus
from db.session import Database
from tests import builders
from tests.al_loop.dying_worker import DIED, open_loop, process, work
from tests.al_loop.workshop import open_workshop
from tests.threads import one_thread

TINY: dict[str, Any] = {
    "device": "cpu",
    "short_side": 96,
    "train_crop": 64,
    "train_batch": 1,
    "train_steps": 4,
    "gate_delta": 1.0,  # models this small differ by chance
    "gate_most_wrong": 1.0,  # and know nothing of labels
    "retrain_after": 1e9,
}
PATIENCE_S = 120


@pytest.fixture(scope="module", autouse=True)
def _as_in_the_worker_processes_here() -> Iterator[None]:
    """Models this small only wait for a second thread."""
    with one_thread():
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with rendered smears, both models trained for a moment, the pool predicted and ranked."""
    home = tmp_path_factory.mktemp("trained")
    loop = open_loop(home, **TINY)
    upgrade(loop.settings.database_url)
    write_coco_folder(home / "source", 20, size=(96, 128), cells=6, infected=0.5)
    import_images(loop.database, loop.store, home / "source", label_share=0.5)
    for role in ("all_cells", "infected"):
        train_here(loop, role)
    preannotate_pool(loop)
    rank(loop.database)
    loop.database.dispose()
    return home


@pytest.fixture
def home(trained: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(trained, tmp_path / "home"))


@pytest.fixture
def loop(home: Path) -> Iterator[Loop]:
    loop = open_loop(home, **TINY)
    yield loop
    loop.database.dispose()


def ask(loop: Loop) -> int:
    """A run, after an expert has answered one more image: the same labels would give the same weights."""
    with loop.database.session() as session:
        for image in images.pool(session)[:1]:
            builders.say(session, builders.add_cell(session, image), "ring")
    run_id = ask_for_retraining(loop, "for a test")
    assert run_id is not None
    return run_id


def run_of(loop: Loop, run_id: int) -> TrainingRun:
    with loop.database.session(read_only=True) as session:
        return runs.get(session, run_id)


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Look again and again until the condition holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {PATIENCE_S} s"
        time.sleep(0.01)


def worker_process(loop: Loop, point: str = "", **settings: Any) -> AbstractContextManager[BaseProcess]:
    """A worker for this home; gone afterwards."""
    return process(work, str(loop.settings.home), {**TINY, **settings}, point)


def counts(loop: Loop) -> tuple[int, int, int]:
    """Versions, decisions and evaluations there are."""
    with loop.database.session(read_only=True) as session:
        return tuple(session.query(table).count() for table in (ModelVersion, PromotionDecision, Evaluation))  # type: ignore[return-value]


def workflows(loop: Loop) -> list[tuple[str, str]]:
    """DBOS's own view of the runs: id and status."""
    engine = create_engine(system_database_url(loop.settings.home, loop.settings.database_url))
    with engine.connect() as connection:
        query = "SELECT workflow_uuid, status FROM workflow_status WHERE name = 'turn.v2'"
        found = [(row[0], row[1]) for row in connection.execute(text(query))]
    engine.dispose()
    return found


def test_a_run_whose_worker_is_killed_three_times_ends_exactly_once(loop: Loop) -> None:
    before = counts(loop)
    run_id = ask(loop)
    with worker_process(loop) as process:
        wait_for(lambda: run_of(loop, run_id).step >= 2, "two steps of training")
        process.kill()
        process.join(30)
    assert run_of(loop, run_id).status is RunStatus.running
    assert counts(loop) == before

    with worker_process(loop, "evaluated") as process:
        process.join(PATIENCE_S)
        assert process.exitcode == DIED
    versions_then, decisions_then, evaluations_then = counts(loop)
    assert (versions_then, decisions_then) == (before[0] + 1, before[1])
    assert evaluations_then == before[2] + 2, "the candidate's and the incumbent's"

    with worker_process(loop, "decided") as process:
        process.join(PATIENCE_S)
        assert process.exitcode == DIED
    after = (before[0] + 1, before[1] + 1, evaluations_then)
    assert counts(loop) == after

    with worker_process(loop) as process:
        wait_for(lambda: run_of(loop, run_id).finished_at is not None, "the end of the run")
        with pytest.raises(WorkerRunning, match="stop it first"), sole_worker(loop.settings.home):
            pass
        process.terminate()
        process.join(30)
        assert process.exitcode == 0
    assert_promoted_once(loop, run_id)
    assert counts(loop) == after
    assert workflows(loop) == [(f"turn-v2-{run_id}", "SUCCESS")]


def assert_promoted_once(loop: Loop, run_id: int) -> None:
    """The run's version serves, everything followed it, and its checkpoints are gone."""
    with loop.database.session(read_only=True) as session:
        run = runs.get(session, run_id)
        assert (run.status, run.message) == (RunStatus.succeeded, "promoted"), run.error
        [decision] = [d for d in versions.decisions(session) if d.run_id == run_id]
        assert decision.promote
        serving = versions.active(session, "infected")
        pair = versions.active_pair(session)
        assert serving is not None
        assert pair is not None
        assert serving.id == run.version_id == decision.version_id == pair.infected_id
        assert {image.id for image in images.pool(session)} <= set(predictions.by_pair(session, pair.id))
        ranking = queue.latest_ranking(session)
        assert ranking is not None
        assert ranking.pair_id == pair.id
    assert not loop.run_folder(run_id).exists()


def test_a_worker_that_is_stopped_while_it_trains_leaves_the_run_to_the_next(loop: Loop) -> None:
    run_id = ask(loop)
    with worker_process(loop, train_steps=2000) as process:
        wait_for(lambda: run_of(loop, run_id).step >= 1, "a step of training")
        process.terminate()
        process.join(30)
        assert process.exitcode == 0, "stopping does not wait for the end of the training"
    assert run_of(loop, run_id).status is RunStatus.running
    assert workflows(loop) == [(f"turn-v2-{run_id}", "PENDING")]


def test_a_cancelled_training_ends_as_cancelled_and_keeps_its_checkpoint(home: Path) -> None:
    loop = open_loop(home, **{**TINY, "train_steps": 2000})
    before = counts(loop)
    run_id = ask(loop)
    with durable(loop):
        handle = DBOS.start_workflow(turn, run_id)
        wait_for(lambda: run_of(loop, run_id).step >= 1, "a step of training")
        with loop.database.session() as session:
            runs.cancel(session, run_id, "enough")
        assert "cancelled" in handle.get_result()
    assert run_of(loop, run_id).status is RunStatus.cancelled
    assert counts(loop) == before
    assert (loop.run_folder(run_id) / CHECKPOINT).is_file()
    loop.database.dispose()


def test_a_run_cancelled_while_it_is_evaluated_promotes_nothing(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    before = counts(loop)
    run_id = ask(loop)
    evaluate_candidate = evaluating.evaluate_candidate

    def cancel_meanwhile(loop: Loop, version_id: int) -> int | None:
        with loop.database.session() as session:
            runs.cancel(session, run_id)
        return evaluate_candidate(loop, version_id)

    monkeypatch.setattr(evaluating, "evaluate_candidate", cancel_meanwhile)
    with durable(loop):
        assert "cancelled" in turn(run_id)
    assert run_of(loop, run_id).status is RunStatus.cancelled
    assert counts(loop)[:2] == (before[0] + 1, before[1])
    with loop.database.session(read_only=True) as session:
        assert versions.versions(session)[-1].status is VersionStatus.candidate
    assert loop.run_folder(run_id).exists()


def test_a_run_with_nothing_new_to_learn_says_so(loop: Loop) -> None:
    before = counts(loop)
    run_id = ask_for_retraining(loop, "impatience")
    assert run_id is not None
    with durable(loop):
        assert "review more images" in turn(run_id)["failed"]
    assert run_of(loop, run_id).status is RunStatus.failed
    assert counts(loop) == before


def test_a_run_cancelled_before_it_begins_trains_nothing(tmp_path: Path, sqlite_database: Database) -> None:
    loop = open_workshop(tmp_path, sqlite_database, **TINY)
    run_id = ask(loop)
    with loop.database.session() as session:
        runs.cancel(session, run_id)
    with durable(loop):
        assert "cancelled" in turn(run_id)
    assert run_of(loop, run_id).status is RunStatus.cancelled


def test_a_run_without_data_fails_with_the_reason(tmp_path: Path, database: Database) -> None:
    loop = open_workshop(tmp_path, database, **TINY)
    run_id = ask(loop)
    with durable(loop):
        assert "failed" in turn(run_id)
    run = run_of(loop, run_id)
    assert run.status is RunStatus.failed
    assert run.error is not None
    assert "label" in run.error
    assert ask_for_retraining(loop, "the next may try") is not None


def test_only_one_worker_at_a_time_works_for_a_home(tmp_path: Path) -> None:
    with sole_worker(tmp_path):
        with pytest.raises(WorkerRunning, match="stop it first"), sole_worker(tmp_path):
            pass
        with sole_worker(tmp_path / "another"):
            pass
    with sole_worker(tmp_path):
        pass


def test_checkpoints_of_workflows_lie_beside_the_record(tmp_path: Path) -> None:
    assert system_database_url(tmp_path, "sqlite:////x/cellloop.sqlite") == f"sqlite:///{tmp_path}/jobs.sqlite"
    beside = system_database_url(tmp_path, "postgresql+psycopg://u@/name?host=/run")
    assert beside == "postgresql://u@/name?host=/run"
