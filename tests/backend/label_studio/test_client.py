"""The client against a real Label Studio: every fact that our code relies on, asked of the server itself."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from backend.errors import LabelStudioRefused
from backend.label_studio.client import LabelStudio
from backend.label_studio.expert import ExpertSession
from backend.label_studio.label_config import default_config, parse
from tests.backend.label_studio.projects import one_cell, small_project
from tests.label_studio_fixture import RunningLabelStudio


def shuffled_scores(tasks: list[int], seed: int) -> dict[int, float]:
    """Distinct scores in (0, 1), in random order."""
    order = list(tasks)
    random.Random(seed).shuffle(order)
    return {task: (rank + 1) / (len(order) + 1) for rank, task in enumerate(order)}


def by_score(scores: dict[int, float]) -> list[int]:
    return sorted(scores, key=lambda task: scores[task])


def test_who_we_are(label_studio: RunningLabelStudio) -> None:
    studio = label_studio.client()
    user = studio.whoami()
    assert user.email == label_studio.email
    assert studio.users()[user.id] == label_studio.email
    assert studio.version()[0].isdigit()
    assert studio.answered_at is not None
    assert abs(datetime.now(UTC) - studio.answered_at) < timedelta(seconds=60), "it tells its clock"


def test_personal_access_token_works_as_well_as_a_legacy_one(label_studio: RunningLabelStudio) -> None:
    token = label_studio.client().transport.post("/api/token/", None)["token"]
    personal = LabelStudio(label_studio.url, token)
    assert personal.whoami().email == label_studio.email
    personal.transport._access = "expired"  # as after five minutes: a 401 buys a new one
    assert personal.whoami().email == label_studio.email


def test_wrong_token_is_refused_without_being_repeated(label_studio: RunningLabelStudio) -> None:
    for token in ("f" * 40, "abc.def.ghi"):
        with pytest.raises(LabelStudioRefused) as caught:
            LabelStudio(label_studio.url, token).whoami()
        assert token not in str(caught.value)
        assert "CELLLOOP_LABEL_STUDIO_TOKEN" in str(caught.value)


def test_project_is_found_by_its_exact_title(label_studio: RunningLabelStudio) -> None:
    studio = label_studio.client()
    other = studio.create_project("exact title and more", default_config())
    ours = studio.create_project("exact title", default_config())
    assert [project.id for project in studio.projects("exact title")] == [ours.id]
    assert ours.sampling == "Uncertainty sampling"
    assert ours.show_collab_predictions is True
    assert parse(studio.project(other.id).label_config).best(has_mask=False).from_name == "cell"
    studio.delete_project(other.id)
    with pytest.raises(LabelStudioRefused, match="404"):
        studio.project(other.id)


def test_next_task_is_the_lowest_score_of_the_projects_version(label_studio: RunningLabelStudio) -> None:
    project = small_project(label_studio, 8)
    old, new = shuffled_scores(project.tasks, 1), shuffled_scores(project.tasks, 2)
    assert by_score(old) != by_score(new)
    project.push("pair-1", old)
    project.serve("pair-2", new)
    task = project.expert.next_task(project.id)
    assert task is not None
    assert [p.model_version for p in task.predictions] == ["pair-2"]  # the older one is not shown
    assert project.walk(8) == by_score(new)
    assert project.expert.next_task(project.id) is None


def test_tasks_without_a_prediction_of_the_version_come_last(label_studio: RunningLabelStudio) -> None:
    project = small_project(label_studio, 6)
    project.push("pair-1", shuffled_scores(project.tasks, 1))
    part = shuffled_scores(project.tasks[2:5], 3)
    project.serve("pair-2", part)
    assert project.walk(3) == by_score(part)


def test_the_version_is_refused_before_its_predictions_are_there(label_studio: RunningLabelStudio) -> None:
    project = small_project(label_studio, 1)
    with pytest.raises(LabelStudioRefused, match="model_version"):
        project.studio.set_model_version(project.id, "pair-9")


def test_a_patched_score_changes_the_order_but_not_an_open_task(label_studio: RunningLabelStudio) -> None:
    project = small_project(label_studio, 7)
    project.serve("pair-1", shuffled_scores(project.tasks, 1))
    opened = project.expert.next_task(project.id)
    assert opened is not None
    ids = project.studio.prediction_ids(project.id, "pair-1")
    assert set(ids) == set(project.tasks)
    scores = shuffled_scores(project.tasks, 5)
    assert project.studio.set_scores({ids[task]: score for task, score in scores.items()} | {10**8: 0.5}) == [10**8]
    prediction = project.studio.prediction(ids[opened.id])
    assert prediction is not None
    assert prediction.score == pytest.approx(scores[opened.id])
    assert prediction.result == one_cell(f"cell{opened.id}")
    rest = [task for task in by_score(scores) if task != opened.id]
    assert project.walk(7) == [opened.id, *rest]


def test_order_and_locks_hold_for_two_experts(label_studio: RunningLabelStudio) -> None:
    project = small_project(label_studio, 6)
    scores = shuffled_scores(project.tasks, 7)
    project.serve("pair-1", scores)
    second = ExpertSession(label_studio.url, second_user_token(label_studio))
    expected = by_score(scores)
    for first_expects, second_expects in zip(expected[0::2], expected[1::2], strict=True):
        tasks = [expert.next_task(project.id) for expert in (project.expert, second)]
        assert [task.id for task in tasks if task is not None] == [first_expects, second_expects]
        project.expert.submit(first_expects, [])
        second.submit(second_expects, [])
    authors = {a.completed_by for task in project.studio.tasks_since(project.id) for a in task.annotations}
    assert len(authors) == 2
    assert authors <= set(project.studio.users())


def second_user_token(label_studio: RunningLabelStudio) -> str:
    """Sign a second expert up by the organization's invitation link, in a browser's way; their personal token."""
    link = label_studio.client().transport.get("/api/invite")["invite_url"]
    with httpx.Client(base_url=label_studio.url, follow_redirects=True) as http:
        http.get(link)
        answer = http.post(
            link,
            data={
                "email": f"second{random.random()}@cellloop.test",
                "password": "another-password",
                "csrfmiddlewaretoken": http.cookies["csrftoken"],
            },
            headers={"Referer": label_studio.url},
        )
        assert answer.status_code == 200
        token = http.post("/api/token/", headers={"X-CSRFToken": http.cookies["csrftoken"]})
        return str(token.json()["token"])


def test_invalid_predictions_are_not_taken_for_stored(label_studio: RunningLabelStudio) -> None:
    project = small_project(label_studio, 2)
    broken = [{**region, "from_name": "nobody"} for region in one_cell("a")]
    good = {"task": project.tasks[0], "model_version": "pair-1", "score": 0.5, "result": one_cell("b")}
    with pytest.raises(LabelStudioRefused, match=r"expected 2 .* stored 1"):
        project.studio.import_predictions(project.id, [good, good | {"task": project.tasks[1], "result": broken}])
    with pytest.raises(LabelStudioRefused, match="task"):
        project.studio.import_predictions(project.id, [good | {"task": 10**8}])
    assert project.studio.model_versions(project.id) == {"pair-1": 1}  # the good one of the two


def test_imports_are_paged_and_versions_deleted(
    label_studio: RunningLabelStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.label_studio.client.PREDICTIONS_PER_IMPORT", 2)
    monkeypatch.setattr("backend.label_studio.client.PAGE", 2)
    monkeypatch.setattr("backend.label_studio.client.IDS_PAGE", 2)
    project = small_project(label_studio, 5)
    assert project.push("pair-1", dict.fromkeys(project.tasks, 0.5)) == 5
    project.serve("pair-2", dict.fromkeys(project.tasks[:4], 0.5))
    assert project.studio.model_versions(project.id) == {"pair-1": 5, "pair-2": 4}
    assert project.studio.task_ids(project.id) == set(project.tasks)
    changed = list(project.studio.tasks_since(project.id))
    assert [task.id for task in changed] == project.tasks
    assert project.studio.task_times(project.id) == {task.id: task.updated_at for task in changed}
    assert set(project.studio.prediction_ids(project.id, "pair-2")) == set(project.tasks[:4])
    assert project.studio.delete_version(project.id, "pair-1") == 5
    assert project.studio.project(project.id).model_version == "pair-2"
    assert project.studio.delete_version(project.id, "pair-2") == 4
    assert not project.studio.project(project.id).model_version


def test_submitting_fails_when_the_shown_prediction_was_deleted(label_studio: RunningLabelStudio) -> None:
    """Why re-ranking patches scores and never deletes."""
    project = small_project(label_studio, 1)
    project.serve("pair-1", {project.tasks[0]: 0.5})
    task = project.expert.next_task(project.id)
    assert task is not None
    shown = task.predictions[0].id
    project.studio.delete_version(project.id, "pair-1")
    assert project.studio.prediction(shown) is None
    with pytest.raises(LabelStudioRefused, match="parent_prediction"):
        project.expert.submit(task.id, task.predictions[0].result, parent_prediction=shown)


def test_polling_sees_everything_an_expert_does_and_no_push(label_studio: RunningLabelStudio) -> None:
    project = small_project(label_studio, 2)
    task_id, expert = project.tasks[0], project.expert

    def moved(before: object) -> bool:
        return project.state(task_id).updated_at != before

    now = project.state(task_id).updated_at
    project.serve("pair-1", {task_id: 0.5})
    assert not moved(now)  # a push makes no work for sync
    expert.save_draft(task_id, one_cell("a"))
    assert not moved(now)

    prediction = project.studio.prediction_ids(project.id, "pair-1")[task_id]
    submitted = expert.submit(task_id, one_cell("a"), parent_prediction=prediction, lead_time_s=12.5)
    assert moved(now)
    state = project.state(task_id)
    assert [a.id for a in state.annotations] == [submitted.id]
    annotation = state.annotations[0]
    assert annotation.parent_prediction == prediction
    assert annotation.lead_time == 12.5
    assert annotation.completed_by == project.studio.whoami().id
    assert annotation.result == one_cell("a")
    assert annotation.created_at.utcoffset() == timedelta(0)
    assert annotation.created_at.microsecond
    assert state.data == {"image": "/data/local-files/?d=images/0.png"}
    assert state.predictions == []

    now = state.updated_at
    expert.update(submitted.id, one_cell("b"), lead_time_s=3.0)
    assert moved(now)
    updated = project.state(task_id).annotations[0]
    assert (updated.id, updated.created_at) == (annotation.id, annotation.created_at)
    assert updated.updated_at > annotation.updated_at
    assert updated.lead_time == 3.0

    now = project.state(task_id).updated_at
    expert.convert_to_draft(submitted.id)
    assert moved(now)
    assert project.state(task_id).annotations == []

    now = project.state(task_id).updated_at
    again = expert.submit(task_id, one_cell("c"))
    assert moved(now)
    now = project.state(task_id).updated_at
    expert.delete(again.id)
    assert moved(now)
    assert project.state(task_id).annotations == []

    now = project.state(task_id).updated_at
    skipped = expert.skip(task_id, lead_time_s=1.0)
    assert moved(now)
    assert [(a.id, a.was_cancelled, a.result) for a in project.state(task_id).annotations] == [(skipped.id, True, [])]

    now = project.state(task_id).updated_at
    selected = {"selectedItems": {"all": False, "included": [task_id]}}
    action = f"/api/dm/actions?project={project.id}&id="
    project.studio.transport.post(action + "delete_tasks_annotations", selected)
    assert moved(now)
    assert project.state(task_id).annotations == []
    now = project.state(task_id).updated_at
    project.studio.transport.post(action + "predictions_to_annotations", {**selected, "model_version": "pair-1"})
    assert moved(now)
    converted = project.state(task_id).annotations[0]
    assert converted.parent_prediction == prediction
    assert [region["id"] for region in converted.result] == [f"cell{task_id}"]
    now = project.state(task_id).updated_at
    project.studio.set_scores({prediction: 0.1})
    assert moved(now)  # re-scoring does make work for sync, but no change


def test_polling_since_a_moment_is_exact_to_the_microsecond(label_studio: RunningLabelStudio) -> None:
    project = small_project(label_studio, 3)
    project.expert.submit(project.tasks[1], [])
    moment = project.state(project.tasks[1]).updated_at
    assert moment is not None
    assert [task.id for task in project.studio.tasks_since(project.id, moment)] == [project.tasks[1]]
    assert list(project.studio.tasks_since(project.id, moment + timedelta(microseconds=1))) == []
    elsewhere = moment.astimezone(tz=None).replace(microsecond=0)
    assert project.tasks[1] in [task.id for task in project.studio.tasks_since(project.id, elsewhere)]


def test_task_that_is_gone(label_studio: RunningLabelStudio) -> None:
    project = small_project(label_studio, 2)
    project.studio.transport.delete(f"/api/tasks/{project.tasks[0]}/")
    assert project.studio.task(project.tasks[0]) is None
    assert project.studio.task_ids(project.id) == {project.tasks[1]}
    task = project.studio.task(project.tasks[1])
    assert task is not None
    assert task.predictions == []


def test_tasks_are_deleted_in_their_project_alone_and_once_is_enough(label_studio: RunningLabelStudio) -> None:
    studio = label_studio.client()
    one, other = (studio.create_project(f"delete {name}", default_config()) for name in ("one", "other"))
    tasks = studio.import_tasks(one.id, [{"image": f"/data/{n}.png"} for n in range(3)])
    kept = studio.import_tasks(other.id, [{"image": "/data/kept.png"}])
    for _ in range(2):
        studio.delete_tasks(one.id, [*tasks[:2], *kept])
        assert (studio.task_ids(one.id), studio.task_ids(other.id)) == ({tasks[2]}, set(kept))
    studio.delete_project(one.id)
    assert (studio.has_project(one.id), studio.has_project(other.id)) == (False, True)
