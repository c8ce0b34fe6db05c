"""Two workers on two homes that share a real PostgreSQL and the files: work spreads, and a dead one's goes on."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from al_loop.context import Loop
from al_loop.first_models import train_here
from al_loop.import_images import import_images
from al_loop.jobs import system_database_url
from al_loop.rendered import write_coco_folder
from al_loop.trigger import ask_for_retraining
from backend.serving import active_pair
from db import images, predictions, queue, run_events, versions, workers
from db.migrate import upgrade
from db.models import RunStatus, Worker
from tests import builders
from tests.al_loop.dying_worker import open_loop, process, work_among_others
from tests.al_loop.test_jobs import TINY, run_of, wait_for
from tests.threads import one_thread

LONG: dict[str, Any] = {**TINY, "train_steps": 12}  # long enough to be killed in the middle

pytestmark = pytest.mark.postgres


@pytest.fixture
def loop(tmp_path: Path, new_postgres_database: Callable[[], str]) -> Iterator[Loop]:
    """An installation whose pair serves and has predicted nothing yet."""
    url = new_postgres_database()
    upgrade(url)
    shared = tmp_path / "shared"
    shared.mkdir()
    loop = open_loop(tmp_path / "one", database_url=url, files_url=f"file://{shared}", **TINY)
    write_coco_folder(tmp_path / "source", 20, size=(96, 128), cells=6, infected=0.5)
    import_images(loop.database, loop.store, tmp_path / "source", label_share=0.5)
    with one_thread():
        for role in ("all_cells", "infected"):
            train_here(loop, role)
    yield loop
    loop.database.dispose()


def worker_process(loop: Loop, home: Path) -> AbstractContextManager[BaseProcess]:
    """A worker with a home of its own; gone afterwards."""
    shared = {"database_url": loop.settings.database_url, "files_url": loop.settings.files_url}
    return process(work_among_others, str(home), {**LONG, **shared})


def living(loop: Loop) -> dict[int, int]:
    """Process of each living worker."""
    with loop.database.session(read_only=True) as session:
        return {worker.id: worker.pid for worker in workers.living(session)}


def executors(loop: Loop, name: str) -> Counter[str]:
    """How many workflows of this name each worker ran."""
    engine = create_engine(system_database_url(loop.settings.home, loop.database.url))
    with engine.connect() as connection:
        query = text("SELECT executor_id FROM dbos.workflow_status WHERE name = :name AND status = 'SUCCESS'")
        found = Counter(connection.scalars(query, {"name": name}).all())
    engine.dispose()
    return found


def test_a_worker_killed_while_it_trains_is_replaced_by_the_other(loop: Loop, tmp_path: Path) -> None:
    with ExitStack() as stack:
        both = {p.pid: p for p in (stack.enter_context(worker_process(loop, tmp_path / n)) for n in ("one", "two"))}
        wait_for(lambda: len(living(loop)) == 2, "two workers")
        pair = active_pair(loop.database)
        assert pair is not None

        def all_predicted() -> bool:
            with loop.database.session(read_only=True) as session:
                return not predictions.missing(session, pair.id) and queue.latest_ranking(session) is not None

        wait_for(all_predicted, "the pool's predictions")
        assert len(executors(loop, "predict-shard.v1")) == 2, "the shards spread over both"

        with loop.database.session() as session:
            builders.say(session, builders.add_cell(session, images.pool(session)[0]), "ring")
        run_id = ask_for_retraining(loop, "for a test")
        assert run_id is not None
        wait_for(lambda: run_of(loop, run_id).checkpoint_sha256 is not None, "a checkpoint in the shared store")
        killed = run_of(loop, run_id).worker_id
        assert killed is not None
        victim = both[living(loop)[killed]]
        victim.kill()
        victim.join(30)
        at, died = run_of(loop, run_id), time.monotonic()
        assert (at.status, at.attempt) == (RunStatus.running, 1)
        wait_for(lambda: run_of(loop, run_id).worker_id not in (None, killed), "the takeover")
        assert time.monotonic() - died < 60
        wait_for(lambda: run_of(loop, run_id).finished_at is not None, "the end of the run")

    run = run_of(loop, run_id)
    assert (run.status, run.message, run.attempt) == (RunStatus.succeeded, "promoted", 2), run.error
    with loop.database.session(read_only=True) as session:
        [decision] = [d for d in versions.decisions(session) if d.run_id == run_id]
        assert decision.version_id == run.version_id
        assert session.get_one(Worker, killed).ended == "died"
        said = run_events.events(session, run_id)
    trained = [event for event in said if event.stage == "train"]
    assert [event.worker_id == killed for event in trained if event.level == run_events.STAGE] == [True, False]
    assert any("goes on at step" in event.message for event in trained), [event.message for event in trained]
    assert not list((tmp_path / "shared").glob("checkpoints/**/*.pt")), "the weights are in the store"
