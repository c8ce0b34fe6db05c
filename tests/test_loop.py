"""The whole story, against a real Label Studio, real processes and (where there are some) real smears.

Read it from top to bottom: it is what cellloop does. The detectors are trained for a few seconds only, so nothing is
said here about how good they are; `docs/results/` is where that is measured.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import pytest

from al_loop.formats.detect import truth_by_sha256
from al_loop.push import push
from al_loop.rollback import rollback
from al_loop.scripted_cells import review_next_cell
from al_loop.scripted_expert import review_next
from al_loop.sync import sync
from al_loop.trigger import ask_for_retraining
from backend.label_studio.label_config import parse
from backend.label_studio.protocol import Task
from db import images, labels, predictions, projects, queue, reviews, runs, versions
from db.models import Action, RunStatus, Slot, VersionStatus, Way
from tests.label_studio_fixture import RunningLabelStudio
from tests.story import Story, assert_same_truth, pushed_story, truth_of

pytestmark = pytest.mark.label_studio

WORKS_FOR_S = 20.0


@pytest.fixture(scope="module")
def story(
    label_studio: RunningLabelStudio, prepared: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Story]:
    """Smears imported, both models trained, everything pushed; the backend is up."""
    with pushed_story(label_studio, prepared, tmp_path_factory.mktemp("story"), "the story") as story:
        yield story


def wait_for_revisions(story: Story, count: int, timeout_s: float) -> float:
    """Seconds until SQL holds this many label revisions."""

    def enough() -> bool:
        with story.loop.database.session(read_only=True) as session:
            return labels.newest_revision_id(session) >= count

    return story.wait_for(enough, timeout_s, f"{count} label revisions")


def newest_revision(story: Story) -> int:
    with story.loop.database.session(read_only=True) as session:
        return labels.newest_revision_id(session)


def test_every_pool_image_waits_in_label_studio_with_our_prediction(story: Story) -> None:
    client, project = story.label_studio.client(), story.project
    with story.loop.database.session(read_only=True) as session:
        pool = images.pool(session)
        assert len(pool) >= 8
        assert len(queue.pending(session)) == len(pool)
        pair = versions.active_pair(session)
        assert pair is not None
        expected = {
            task.ls_task_id: len(predictions.predicted_cells(session, task.pushed_prediction_id))
            for task in projects.tasks(session, project.id)
            if task.pushed_prediction_id is not None
        }
    held = client.prediction_ids(project.ls_project_id, pair.name)
    assert set(held) == set(expected) == client.task_ids(project.ls_project_id)
    shown = {task_id: client.prediction(prediction_id) for task_id, prediction_id in held.items()}
    assert {task_id: len(p.result) for task_id, p in shown.items() if p is not None} == expected
    assert client.project(project.ls_project_id).model_version == pair.name


def test_pushing_again_adds_nothing(story: Story) -> None:
    report = push(story.loop, story.loop.label_studio(), story.project)
    assert (report.tasks, report.predictions, report.rescored) == (0, 0, 0)


def test_label_studio_serves_our_order_and_every_action_ends_in_sql(story: Story) -> None:
    """The expert goes through the queue and does something else with each task."""
    expert, project = story.label_studio.expert(), story.project
    with story.loop.database.session(read_only=True) as session:
        tasks = {task.image_id: task.ls_task_id for task in projects.tasks(session, project.id)}
        our_order = [tasks[item.image_id] for item in queue.pending(session)]
    served: list[int] = []
    expected: dict[int, set[Action]] = {}

    def next_task() -> tuple[Task, list[dict], int]:
        task = expert.next_task(project.ls_project_id)
        assert task is not None
        served.append(task.id)
        prediction = task.predictions[-1]
        assert prediction.result, "the expert is shown our cells"
        return task, deepcopy(prediction.result), prediction.id

    def label_of(region: dict) -> list[str]:
        return region["value"]["rectanglelabels"]

    task, result, parent = next_task()  # 1. accept everything
    expert.submit(task.id, result, parent_prediction=parent, lead_time_s=12.5)
    expected[task.id] = {Action.accepted}

    task, result, parent = next_task()  # 2. another class, a moved box, a deleted and an added one
    label_of(result[0])[:] = ["difficult" if label_of(result[0]) != ["difficult"] else "ring"]
    result[1]["value"]["x"] = max(0.0, result[1]["value"]["x"] - 2.0)
    result[1]["value"]["width"] += 1.5
    del result[2]
    added = deepcopy(result[0]) | {"id": "byhand0001", "origin": "manual"}
    added["value"] |= {"x": 0.5, "y": 0.5, "width": 1.0, "height": 1.2, "rectanglelabels": ["schizont"]}
    expert.submit(task.id, [*result, added], parent_prediction=parent)
    expected[task.id] = {Action.accepted, Action.relabelled, Action.moved, Action.deleted, Action.added}

    task, result, _ = next_task()  # 3. skip
    expert.skip(task.id)
    expected[task.id] = set()

    task, result, parent = next_task()  # 4. submit, then change one's mind
    annotation = expert.submit(task.id, result, parent_prediction=parent)
    sync(story.loop, story.loop.label_studio(), project)
    label_of(result[0])[:] = ["gametocyte" if label_of(result[0]) != ["gametocyte"] else "ring"]
    expert.update(annotation.id, result)
    expected[task.id] = {Action.accepted, Action.relabelled}

    task, result, parent = next_task()  # 5. submit, then delete
    annotation = expert.submit(task.id, result, parent_prediction=parent)
    sync(story.loop, story.loop.label_studio(), project)
    expert.delete(annotation.id)
    expected[task.id] = set()

    task, result, parent = next_task()  # 6. submit, then turn it back into a draft
    annotation = expert.submit(task.id, result, parent_prediction=parent)
    sync(story.loop, story.loop.label_studio(), project)
    expert.convert_to_draft(annotation.id)
    expected[task.id] = set()

    sync(story.loop, story.loop.label_studio(), project)
    # A task whose annotation went away is served again; in between, our order.
    assert [task for i, task in enumerate(served) if task not in served[:i]] == our_order[: len(set(served))]
    with story.loop.database.session(read_only=True) as session:
        image_of = {task.ls_task_id: task.image_id for task in projects.tasks(session, project.id)}
        for ls_task_id, actions in expected.items():
            live = labels.current_labels(session, [image_of[ls_task_id]])
            assert {label.action for label in live} == actions, ls_task_id
        first = reviews.live_reviews(session, image_of[served[0]])[0]
    assert first.lead_time_s == 12.5
    assert first.expert == story.label_studio.email
    assert first.prediction_id is not None
    assert_same_truth(story)


def test_syncing_again_adds_nothing(story: Story) -> None:
    before = newest_revision(story)
    with story.loop.database.session() as session:
        projects.get(session, story.project.id).synced_until = None  # even if the cursor is lost
    assert not sync(story.loop, story.loop.label_studio(), story.project).changed
    assert newest_revision(story) == before


def test_the_webhook_brings_a_review_within_seconds_and_a_dead_backend_loses_none(story: Story) -> None:
    expert, project = story.label_studio.expert(), story.project
    config = parse(project.label_config)
    worker = story.start("worker")
    story.wait_for(lambda: "worker is up" in (story.logs / "worker.log").read_text(), 60, "the worker")

    def submit() -> None:
        task = expert.next_task(project.ls_project_id)
        assert task is not None
        prediction = task.predictions[-1]
        expert.submit(task.id, prediction.result, parent_prediction=prediction.id)

    before = newest_revision(story)
    submit()
    wait_for_revisions(story, before + 1, 20)
    assert worker.poll() is None

    serving = story.children[0]
    story.kill(serving)
    before = newest_revision(story)
    submit()  # the webhook finds nobody
    assert config is not None
    assert newest_revision(story) == before
    story.children.remove(serving)
    story.children.insert(0, story.serve())
    sync(story.loop, story.loop.label_studio(), project)
    assert newest_revision(story) > before
    assert_same_truth(story)


def test_a_retraining_is_decided_promoted_and_served_without_a_restart(story: Story) -> None:
    """The worker is running since the last test; the backend was never told anything."""
    client, project = story.label_studio.client(), story.project
    before = client.project(project.ls_project_id).model_version
    run_id = ask_for_retraining(story.loop, "the story goes on")
    assert run_id is not None

    def ended() -> bool:
        with story.loop.database.session(read_only=True) as session:
            return runs.get(session, run_id).finished_at is not None

    story.wait_for(ended, 300, "the retraining")
    with story.loop.database.session(read_only=True) as session:
        run = runs.get(session, run_id)
        assert run.status is RunStatus.succeeded, run.error
        decision = next(d for d in versions.decisions(session) if d.run_id == run_id)
        assert decision.promote
        assert decision.kind == "gate"
        assert any("infected recall" in reason for reason in decision.reasons)
        assert versions.get(session, decision.replaced_id).status is VersionStatus.retired
        serving = versions.active(session, "infected")
        assert serving is not None
        assert serving.id == run.version_id
        trained_on = {image["sha256"] for image in serving.manifest["images"]}
        submitted = {images.get(session, r.image_id).sha256 for r in reviews.live_threads(session).values()
                     if r.ls_annotation_id and r.status == "submitted"}  # fmt: skip
        pair = versions.active_pair(session)
    assert pair is not None
    assert submitted, "the experts' images are among those trained on"
    assert submitted <= trained_on
    assert pair.name != before
    assert client.project(project.ls_project_id).model_version == pair.name
    with story.loop.database.session(read_only=True) as session:
        pool = {image.id for image in images.pool(session)}
        waiting = {task.ls_task_id for task in projects.tasks(session, project.id) if task.image_id in pool}
    assert waiting <= set(client.prediction_ids(project.ls_project_id, pair.name)), "whichever field comes next"
    setup = client.transport.get("/api/ml/", project=project.ls_project_id)
    assert setup[0]["state"] == "CO", "Label Studio still finds our backend connected"
    assert story.health() == "UP"
    assert_same_truth(story)


def test_a_rollback_is_instant_and_complete_without_a_worker(story: Story) -> None:
    """Predictions, order and Label Studio's model version; the server still was never told anything."""
    client, project = story.label_studio.client(), story.project
    worker = next(child for child in story.children if "worker" in child.args)
    worker.terminate()
    worker.wait(60)
    with story.loop.database.session(read_only=True) as session:
        better = versions.active_pair(session)
    assert better is not None
    report = rollback(story.loop, "infected", reason="the story turns back")
    assert (report.replaced, report.left) == (better.infected_id, [])
    assert project.title in report.shown
    with story.loop.database.session(read_only=True) as session:
        before = versions.active_pair(session)
        assert before is not None
        assert before.infected_id == report.active != better.infected_id
        image_of = {row.ls_task_id: row.image_id for row in projects.tasks(session, project.id)}
        task_of = {image_id: ls_task_id for ls_task_id, image_id in image_of.items()}
        waiting = [task_of[item.image_id] for item in queue.pending(session, Way.field)]
    assert story.predicted_by(waiting[0]) == before.name
    assert client.project(project.ls_project_id).model_version == before.name
    assert set(client.prediction_ids(project.ls_project_id, before.name)) >= set(waiting)
    served = story.label_studio.expert().next_task(project.ls_project_id)
    assert served is not None
    assert served.id == waiting[0], "in the order of the pair before"
    assert {prediction.model_version for prediction in served.predictions} == {before.name}
    assert_same_truth(story)
    story.start("worker")


def test_the_scripted_expert_works_in_both_ways(story: Story, prepared: Path) -> None:
    """The expert who knows the truth, while the worker puts the waiting ones in order; nothing of it is lost."""
    expert, project, studio = story.label_studio.expert(), story.project, story.loop.label_studio()
    [source] = [folder for name in ("bbbc041", "rendered") if (folder := prepared.parent / name).is_dir()]
    config, truth = parse(project.label_config), truth_by_sha256(source)
    with story.loop.database.session(read_only=True) as session:
        cells = projects.project(session, project.url, way=Way.cell)
        waiting = {item.way for item in queue.pending(session) if item.slot != Slot.second_reading}
    assert cells is not None
    deadline = time.monotonic() + WORKS_FOR_S
    while time.monotonic() < deadline:
        one, other = review_next_cell(story.loop, expert, cells, truth), review_next(expert, project, config, truth)
        if one is None and other is None:
            break
    for connected in (cells, project):
        sync(story.loop, studio, connected)
    answered = {
        reviews.annotation_thread(cells.ls_project_id, annotation.id)
        for task in studio.tasks_since(cells.ls_project_id)
        for annotation in task.annotations
        if annotation.lead_time is not None and not annotation.was_cancelled
    }
    with story.loop.database.session(read_only=True) as session:
        known = reviews.live_threads(session, cells.ls_project_id)
    assert {thread for thread, review in known.items() if review.status == "submitted"} == answered
    assert answered or Way.cell not in waiting
    assert truth_of(story, list(studio.tasks_since(project.ls_project_id)))
