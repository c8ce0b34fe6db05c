"""A rollback is complete at once: predictions, order and Label Studio's model version; the worker does what is left."""

from __future__ import annotations

from pathlib import Path

import pytest

from al_loop.push import push
from al_loop.rank import rank
from al_loop.rollback import rollback
from backend.errors import StoredFileCorrupt
from backend.serving import active_pair
from db import queue, versions
from db.session import Database
from tests import builders
from tests.al_loop.test_push import served
from tests.al_loop.workshop import Workshop, add_pool, new_pair, open_workshop, predict


def shown_twice(home: Path, database: Database, count: int = 4) -> tuple[Workshop, list[int], int]:
    """Label Studio shows a second pair, whose order is the other way round; the pool, and the first pair's id."""
    workshop = open_workshop(home, database)
    pool = add_pool(workshop, count)
    stored = [workshop.store.put_bytes("weights", word, ".safetensors").sha256 for word in (b"all", b"infected")]
    with database.session() as session:
        for role, sha256 in zip(("all_cells", "infected"), stored, strict=True):
            version = builders.add_version(session, role, weights_sha256=sha256)
            versions.activate(session, version.id, kind="first", reasons=["whose weights are there"])
    first = active_pair(database)
    assert first is not None
    predict(workshop, first.id, pool[::-1])
    rank(database)
    push(workshop, workshop.fake, workshop.project)
    new_pair(workshop, pool)
    rank(database)
    push(workshop, workshop.fake, workshop.project)
    return workshop, pool, first.id


def test_predictions_order_and_version_come_back_without_a_worker(tmp_path: Path, sqlite_database: Database) -> None:
    workshop, pool, first = shown_twice(tmp_path, sqlite_database)
    held = set(workshop.fake.predictions)
    report = rollback(workshop, "infected", reason="worse on thin smears")
    pair = active_pair(sqlite_database)
    assert pair is not None
    assert (pair.id, report.shown, report.left) == (first, ["cellloop"], [])
    assert report.to_json()["seconds"] >= 0
    assert workshop.fake.project(workshop.project.ls_project_id).model_version == pair.name
    assert served(workshop) == pool[::-1]
    assert set(workshop.fake.predictions) == held, "what it had predicted was there"
    with sqlite_database.session(read_only=True) as session:
        ranking = queue.latest_ranking(session)
        assert ranking is not None
        assert ranking.pair_id == first
        assert versions.decisions(session)[-1].reasons == ["worse on thin smears"]


def test_what_cannot_be_done_at_once_is_said_and_left_to_the_worker(tmp_path: Path, sqlite_database: Database) -> None:
    workshop, pool, first = shown_twice(tmp_path, sqlite_database)
    add_pool(workshop, 3)
    workshop.fake.down = True
    report = rollback(workshop, "infected")
    pair = active_pair(sqlite_database)
    assert pair is not None
    assert (pair.id, report.shown) == (first, [])
    assert "3 images are predicted by the worker" in report.left[0]
    assert "cellloop is shown it by the worker" in report.left[1]
    with sqlite_database.session(read_only=True) as session:
        assert {item.image_id for item in queue.pending(session)} == set(pool)


def test_while_the_worker_pushes_nobody_waits(tmp_path: Path, sqlite_database: Database) -> None:
    workshop, _, first = shown_twice(tmp_path, sqlite_database)
    with workshop.alone("push"):
        report = rollback(workshop, "infected")
    assert report.shown == []
    assert "cellloop is shown it by the worker" in report.left[0]
    pair = active_pair(sqlite_database)
    assert pair is not None
    assert pair.id == first


def test_a_version_whose_weights_are_gone_is_not_brought_back(tmp_path: Path, sqlite_database: Database) -> None:
    workshop, _, first = shown_twice(tmp_path, sqlite_database)
    for file in workshop.store.path("weights").rglob("*.safetensors"):
        file.unlink()
    with pytest.raises(StoredFileCorrupt):
        rollback(workshop, "infected")
    pair = active_pair(sqlite_database)
    assert pair is not None
    assert pair.id != first
