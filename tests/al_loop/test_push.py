"""Predictions and order into Label Studio: once, complete, and in our order, whatever is interrupted."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from al_loop.push import push
from al_loop.push_order import HEAD
from al_loop.rank import rank
from backend.errors import LabelStudioUnavailable, NoTrainedModel
from backend.far_store import open_store
from backend.label_studio.protocol import UNRANKED_SCORE, priority_to_score
from db import predictions, projects, queue, versions
from db.models import ModelPair, Push
from db.session import Database
from tests import builders
from tests.al_loop.deciding import undo
from tests.al_loop.workshop import BOXES, Workshop, add_pool, new_pair, open_workshop, predict, pushed_workshop
from tests.fake_label_studio import FakeLabelStudio


@pytest.fixture
def workshop(tmp_path: Path, sqlite_database: Database) -> Workshop:
    return open_workshop(tmp_path, sqlite_database)


def run(workshop: Workshop) -> tuple[int, int, int, int]:
    """Push; what was created, rescored and left waiting."""
    report = push(workshop, workshop.fake, workshop.project)
    return report.tasks, report.predictions, report.rescored, report.waiting


def order(workshop: Workshop, image_ids: Sequence[int]) -> None:
    """Let these images wait in this order; a priority of their own each."""
    with workshop.database.session() as session:
        pair = versions.active_pair(session)
        assert pair is not None
        ranking = queue.add_ranking(session, pair.id, {})
        entries = [queue.QueueEntry(image, float(len(image_ids) - n), {}) for n, image in enumerate(image_ids)]
        queue.replace_queue(session, ranking.id, entries)


def served(workshop: Workshop) -> list[int]:
    """Images in the order in which Label Studio gives their tasks to an expert, who skips them all."""
    with workshop.database.session(read_only=True) as session:
        image_of = {task.ls_task_id: task.image_id for task in projects.tasks(session, workshop.project.id)}
    found = []
    while (task := workshop.expert.next_task(workshop.project.ls_project_id)) is not None:
        workshop.expert.skip(task.id)
        found.append(image_of[task.id])
    return found


def assert_whole(fake: FakeLabelStudio, count: int, version: str) -> None:
    """One task per image, one prediction of this version per task."""
    assert len({task.data["sha256"] for task in fake.tasks.values()}) == len(fake.tasks) == count
    assert {task: len(held) for task, held in fake.of_version(version).items()} == dict.fromkeys(fake.tasks, 1)


def pair_name(workshop: Workshop, pair_id: int) -> str:
    with workshop.database.session(read_only=True) as session:
        return session.get_one(ModelPair, pair_id).name


def test_first_push_brings_everything_and_the_version_last(tmp_path: Path, database: Database) -> None:
    workshop = open_workshop(tmp_path, database)
    pool = add_pool(workshop, 7)
    pair = new_pair(workshop, pool[:6])
    rank(database)
    assert run(workshop) == (7, 6, 0, 1)
    writes = [call for call in workshop.fake.calls if call.startswith(("import", "set"))]
    assert writes == ["import_tasks", "import_predictions", "set_model_version"]
    with database.session(read_only=True) as session:
        waiting = [item.image_id for item in queue.pending(session)]
        pushes = session.query(Push).one()
    assert (pushes.pair_id, pushes.predictions, pushes.rescored) == (pair, 6, 0)
    assert served(workshop) == [*waiting, pool[6]]
    assert run(workshop) == (0, 0, 0, 1)
    with database.session(read_only=True) as session:
        assert session.query(Push).count() == 1


def test_without_models_nothing_is_pushed(workshop: Workshop) -> None:
    add_pool(workshop, 1)
    with pytest.raises(NoTrainedModel, match="cellloop train"):
        run(workshop)
    assert workshop.fake.tasks == {}


def test_label_studio_finds_the_files_it_shows(workshop: Workshop, tmp_path: Path) -> None:
    (tmp_path / "share").mkdir()
    url = f"file://{tmp_path / 'share'}"
    stored = open_store(tmp_path / "another machine", url).put_bytes("images", b"a smear", ".png")
    with workshop.database.session() as session:
        known = builders.add_image(session, sha256=stored.sha256, file=stored.file)
        builders.add_image(session, "lost.png")
    here = replace(workshop, store=open_store(workshop.settings.files, url))
    new_pair(here, [known.id])
    assert push(here, here.fake, here.project).tasks == 1  # no task that would show nothing
    assert here.store.path(stored.file).read_bytes() == b"a smear"


@pytest.mark.parametrize("lost", ["import_tasks", "import_predictions"])
def test_a_lost_answer_doubles_nothing(workshop: Workshop, lost: str) -> None:
    pool = add_pool(workshop, 60)  # two chunks of predictions
    pair = new_pair(workshop, pool, BOXES[:1])
    order(workshop, pool)
    workshop.fake.crash_after = {lost}
    with pytest.raises(LabelStudioUnavailable):
        run(workshop)
    run(workshop)
    assert_whole(workshop.fake, 60, pair_name(workshop, pair))
    assert served(workshop) == pool
    assert run(workshop) == (0, 0, 0, 0)


def test_two_pushes_at_once_double_nothing(workshop: Workshop) -> None:
    pool = add_pool(workshop, 3)
    pair = new_pair(workshop, pool)
    order(workshop, pool)
    other = threading.Thread(target=run, args=(workshop,))

    def start_other(name: str) -> None:
        if name == "import_tasks":
            workshop.fake.on_call = lambda name: None
            other.start()
            other.join(0.3)  # it would be through long ago if it did not wait

    workshop.fake.on_call = start_other
    assert run(workshop) == (3, 3, 0, 0)
    other.join(30)
    assert not other.is_alive()
    assert_whole(workshop.fake, 3, pair_name(workshop, pair))


def test_a_new_order_rescores_the_head_and_what_would_come_before_it(workshop: Workshop) -> None:
    pool = add_pool(workshop, HEAD + 30)
    new_pair(workshop, pool, BOXES[:1])
    order(workshop, pool)
    run(workshop)
    before = {p.task: p.score for p in workshop.fake.predictions.values()}
    # The last ten change places among themselves, two of the tail come first, the first falls to the end.
    tail = pool[HEAD + 2 : HEAD + 20]
    new_order = [*pool[HEAD : HEAD + 2], *pool[1:HEAD], *tail, *reversed(pool[HEAD + 20 :]), pool[0]]
    order(workshop, new_order)
    created = run(workshop)
    after = {p.task: p.score for p in workshop.fake.predictions.values()}
    with workshop.database.session(read_only=True) as session:
        image_of = {task.ls_task_id: task.image_id for task in projects.tasks(session, workshop.project.id)}
    touched = {image_of[task] for task in before if before[task] != after[task] and task is not None}
    head = set(new_order[:HEAD])
    assert created == (0, 0, len(touched), 0)
    assert touched <= head | {pool[0], pool[HEAD - 1]}
    assert {*pool[HEAD : HEAD + 2], pool[0]} <= touched
    assert served(workshop)[:HEAD] == new_order[:HEAD]


def test_the_order_is_ours_to_the_end_when_all_scores_are_new(workshop: Workshop) -> None:
    pool = add_pool(workshop, 12)
    new_pair(workshop, pool)
    order(workshop, pool)
    run(workshop)
    order(workshop, pool[::-1])
    workshop.fake.crash_after = {"set_scores"}
    with pytest.raises(LabelStudioUnavailable):
        run(workshop)
    run(workshop)
    assert served(workshop) == pool[::-1]


def test_an_image_that_does_not_wait_goes_last(workshop: Workshop) -> None:
    pool = add_pool(workshop, 3)
    new_pair(workshop, pool)
    order(workshop, pool[1:])
    run(workshop)
    scores = sorted(prediction.score or 0.0 for prediction in workshop.fake.predictions.values())
    assert scores == [priority_to_score(2.0), priority_to_score(1.0), UNRANKED_SCORE]
    assert served(workshop) == [pool[1], pool[2], pool[0]]


def test_a_rollback_uses_the_older_predictions_again(tmp_path: Path, sqlite_database: Database) -> None:
    workshop = pushed_workshop(tmp_path, sqlite_database, 4)
    with sqlite_database.session(read_only=True) as session:
        pool = [task.image_id for task in projects.tasks(session, workshop.project.id)]
        old = versions.active_pair(session)
    assert old is not None
    new = new_pair(workshop, pool)
    rank(sqlite_database)
    assert run(workshop) == (0, 4, 0, 0)
    fake, ls_project_id = workshop.fake, workshop.project.ls_project_id
    assert fake.project(ls_project_id).model_version == pair_name(workshop, new)
    undo(sqlite_database, "infected")
    order(workshop, pool[::-1])
    held = set(fake.predictions)
    report = push(workshop, fake, workshop.project)
    assert (report.model_version, report.tasks, report.predictions) == (old.name, 0, 0)
    assert set(fake.predictions) == held
    assert fake.project(ls_project_id).model_version == old.name
    assert served(workshop) == pool[::-1]


def test_a_version_is_set_although_the_push_before_died_just_before_that(workshop: Workshop) -> None:
    pool = add_pool(workshop, 2)
    pair = new_pair(workshop, pool)
    order(workshop, pool)
    workshop.fake.on_call = lambda name: setattr(workshop.fake, "down", name == "set_model_version")
    with pytest.raises(LabelStudioUnavailable):
        run(workshop)
    workshop.fake.on_call = lambda name: None
    workshop.fake.down = False
    assert run(workshop) == (0, 0, 0, 0)
    assert workshop.fake.project(workshop.project.ls_project_id).model_version == pair_name(workshop, pair)


def test_a_prediction_deleted_in_label_studio_comes_back(workshop: Workshop) -> None:
    pool = add_pool(workshop, 2)
    pair = new_pair(workshop, pool)
    order(workshop, pool)
    run(workshop)
    del workshop.fake.predictions[min(workshop.fake.predictions)]
    order(workshop, pool[::-1])
    run(workshop)
    run(workshop)
    assert_whole(workshop.fake, 2, pair_name(workshop, pair))
    assert served(workshop) == pool[::-1]


def test_images_that_come_later_are_added(workshop: Workshop) -> None:
    pool = add_pool(workshop, 2)
    pair = new_pair(workshop, pool)
    order(workshop, pool)
    run(workshop)
    late = add_pool(workshop, 1)
    predict(workshop, pair, late)
    order(workshop, [*late, *pool])
    assert run(workshop) == (1, 1, 0, 0)
    assert_whole(workshop.fake, 3, pair_name(workshop, pair))
    assert served(workshop) == [*late, *pool]
    with workshop.database.session(read_only=True) as session:
        assert len(predictions.by_pair(session, pair)) == 3


def test_a_field_that_comes_up_is_marked_with_todays_reasons(workshop: Workshop) -> None:
    pool = add_pool(workshop, 3)
    pair = new_pair(workshop, pool)
    order(workshop, pool)
    assert run(workshop) == (3, 3, 0, 0)
    assert "set_result" not in workshop.fake.calls, "what was just pushed shows today's reasons"
    with workshop.database.session() as session:
        prediction = predictions.get_prediction(session, pool[1], pair)
        assert prediction is not None
        [(cell, key), *_] = predictions.predicted_cells(session, prediction.id)
        ranking = queue.latest_ranking(session)
        assert ranking is not None
        queue.add_ranked_cells(session, ranking.id, [queue.CellRank(cell.id, 1.0, {}, "Infected or not?")])
    run(workshop)
    run(workshop)
    assert workshop.fake.calls.count("set_result") == 1
    with workshop.database.session(read_only=True) as session:
        task = projects.task_of(session, workshop.project.id, image_id=pool[1])
        assert task is not None
    shown = workshop.fake.prediction(task.pushed_ls_prediction_id or 0)
    assert shown is not None
    reasons = {region["id"]: region.get("meta") for region in shown.result}
    assert "Infected or not?" in str(reasons[key])
