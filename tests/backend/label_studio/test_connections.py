"""Storage, ML backend and webhook of a project in a real Label Studio, against a backend that records its calls."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest

from backend.errors import LabelStudioRefused
from backend.label_studio.connections import ensure_image_storage, ensure_ml_backend, ensure_webhook
from backend.label_studio.protocol import PredictRequest, SetupRequest, wake_up
from tests.backend.label_studio.projects import one_cell, small_project
from tests.backend.label_studio.recorder import Recorder, recording
from tests.label_studio_fixture import RunningLabelStudio, free_port

SECRET = {"Authorization": "Bearer webhook-secret"}
BASIC = "Basic " + base64.b64encode(b"label-studio:hunter22").decode()


@pytest.fixture
def backend() -> Iterator[Recorder]:
    """An ML backend that knows no prediction: its item has no `result`."""
    answers: dict[str, tuple[int, Any]] = {
        "/health": (200, {"status": "UP"}),
        "/setup": (200, {"model_version": "pair-1"}),
        "/predict": (200, {"results": [{"model_version": "pair-1", "reason": "waits for the worker"}]}),
        "/webhook": (202, {"received": True}),
    }
    with recording(answers) as recorder:
        yield recorder


def test_stored_images_are_shown_and_nothing_else(label_studio: RunningLabelStudio) -> None:
    folder = label_studio.images / "ab"
    folder.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / "x.png"), np.full((48, 64, 3), 200, np.uint8))
    (label_studio.home / "files" / "secret.txt").write_text("weights")
    project = small_project(label_studio, 1)
    storage = ensure_image_storage(project.studio, project.id, label_studio.images)
    assert ensure_image_storage(project.studio, project.id, label_studio.images) == storage
    assert len(project.studio.transport.get("/api/storages/localfiles/", project=project.id)) == 1
    with httpx.Client(base_url=label_studio.url, headers={"Authorization": f"Token {label_studio.token}"}) as http:
        shown = http.get("/data/local-files/?d=images/ab/x.png")
        assert (shown.status_code, shown.headers["content-type"]) == (200, "image/png")
        assert shown.content == (folder / "x.png").read_bytes()
        assert http.get("/data/local-files/?d=secret.txt").status_code != 200
        assert http.get("/data/local-files/?d=images/../secret.txt").status_code != 200
    assert httpx.get(f"{label_studio.url}/data/local-files/?d=images/ab/x.png").status_code == 401
    with pytest.raises(LabelStudioRefused, match="subdirector"):
        ensure_image_storage(project.studio, project.id, label_studio.images.parent)
    assert project.studio.task_ids(project.id) == set(project.tasks)


def test_the_backend_is_connected_with_basic_auth_and_keeps_the_version(
    label_studio: RunningLabelStudio, backend: Recorder
) -> None:
    project = small_project(label_studio, 1)
    first = ensure_ml_backend(project.studio, project.id, backend.url, "label-studio", "hunter22")
    assert not project.studio.project(project.id).model_version  # Label Studio had set it to the backend's title
    ours = [call for call in backend.calls if call.path != "/webhook"]
    assert {call.path for call in ours} == {"/health", "/setup"}
    assert {call.headers.get("Authorization") for call in ours} == {BASIC}
    setup = SetupRequest.model_validate(backend.to("/setup")[0].body)
    assert setup.project_id == project.id
    assert "RectangleLabels" in setup.label_config
    project.serve("pair-1", {project.tasks[0]: 0.5})
    again = ensure_ml_backend(project.studio, project.id, backend.url + "/", "label-studio", "hunter23")
    assert again == first
    assert project.studio.project(project.id).model_version == "pair-1"
    assert len(project.studio.transport.get("/api/ml/", project=project.id)) == 1


def test_polling_and_next_task_do_not_call_the_backend(label_studio: RunningLabelStudio, backend: Recorder) -> None:
    project = small_project(label_studio, 2)
    ensure_ml_backend(project.studio, project.id, backend.url, "label-studio", "hunter22")
    project.serve("pair-1", {project.tasks[0]: 0.5})
    backend.calls.clear()
    assert len(list(project.studio.tasks_since(project.id))) == 2
    assert project.expert.next_task(project.id) is not None
    assert project.walk(2) == project.tasks
    assert {call.path for call in backend.calls} == {"/webhook"}


def test_an_opened_task_without_prediction_is_asked_for_and_an_item_without_result_is_not_stored(
    label_studio: RunningLabelStudio, backend: Recorder
) -> None:
    project = small_project(label_studio, 2)
    ensure_ml_backend(project.studio, project.id, backend.url, "label-studio", "hunter22")
    opened = project.studio.task(project.tasks[0])
    (call,) = backend.to("/predict")
    request = PredictRequest.model_validate(call.body)
    assert [task.id for task in request.tasks] == [project.tasks[0]]
    assert request.project_id == project.id
    assert request.tasks[0].data == {"image": "/data/local-files/?d=images/0.png"}
    assert request.params.context is None
    assert opened is not None
    assert opened.predictions == []
    backend.answers["/predict"] = (200, {"results": [{"model_version": "pair-1", "score": 0.5, "result": []}]})
    again = project.studio.task(project.tasks[0])
    assert again is not None
    assert [(p.model_version, p.score) for p in again.predictions] == [("pair-1", 0.5)]


def test_annotation_events_arrive_with_the_secret_and_once(label_studio: RunningLabelStudio, backend: Recorder) -> None:
    project = small_project(label_studio, 1)
    ensure_ml_backend(project.studio, project.id, backend.url, "label-studio", "hunter22")
    hook = ensure_webhook(project.studio, project.id, backend.url + "/webhook", SECRET)
    assert ensure_webhook(project.studio, project.id, backend.url + "/webhook", SECRET) == hook
    assert len(project.studio.transport.get("/api/webhooks/", project=project.id)) == 1

    backend.calls.clear()
    task = project.tasks[0]
    submitted = project.expert.submit(task, one_cell("a"))
    project.expert.update(submitted.id, one_cell("b"))
    project.expert.delete(submitted.id)
    skipped = project.expert.skip(task)
    project.expert.convert_to_draft(skipped.id)  # goes unannounced: polling alone sees it
    calls = backend.to("/webhook")
    assert [call.body["action"] for call in calls] == [
        "ANNOTATION_CREATED",
        "ANNOTATION_UPDATED",
        "ANNOTATIONS_DELETED",
        "ANNOTATION_CREATED",
    ]
    assert {call.headers.get("Authorization") for call in calls} == {SECRET["Authorization"]}
    assert wake_up(calls[0].body) == {"project": project.id, "tasks": [task], "annotations": [submitted.id]}
    assert wake_up(calls[2].body) == {"project": project.id, "tasks": [], "annotations": [submitted.id]}


def test_start_training_comes_with_the_backends_basic_auth(label_studio: RunningLabelStudio, backend: Recorder) -> None:
    project = small_project(label_studio, 1)
    ml = ensure_ml_backend(project.studio, project.id, backend.url, "label-studio", "hunter22")
    ensure_webhook(project.studio, project.id, backend.url + "/webhook", SECRET)
    backend.calls.clear()
    project.studio.transport.post(f"/api/ml/{ml}/train", {})
    (call,) = backend.to("/webhook")
    assert call.body["action"] == "START_TRAINING"
    assert call.headers["Authorization"] == BASIC
    assert wake_up(call.body)["project"] == project.id


def test_a_backend_that_is_down_is_refused_without_the_password(label_studio: RunningLabelStudio) -> None:
    project = small_project(label_studio, 1)
    with pytest.raises(LabelStudioRefused, match="Can't connect to ML backend") as caught:
        ensure_ml_backend(project.studio, project.id, f"http://127.0.0.1:{free_port()}", "label-studio", "hunter22")
    assert "hunter22" not in str(caught.value)
    assert project.studio.transport.get("/api/ml/", project=project.id) == []


def test_a_folder_that_does_not_exist_is_named(label_studio: RunningLabelStudio, tmp_path: Path) -> None:
    project = small_project(label_studio, 1)
    with pytest.raises(LabelStudioRefused, match="does not exist"):
        ensure_image_storage(project.studio, project.id, tmp_path / "nothing")
