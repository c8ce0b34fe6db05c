"""The server as a real Label Studio calls it: connecting, opening tasks, retrieving, training, uploads, webhooks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from backend.api.app import create_app
from backend.label_studio.client import LabelStudio
from backend.label_studio.connections import ensure_ml_backend, ensure_webhook
from backend.label_studio.label_config import default_config
from backend.rotation import begin_rotation, end_rotation
from db import images, inbox
from db.models import Image
from tests.backend.server import Bench, running
from tests.backend.smears import png
from tests.label_studio_fixture import RunningLabelStudio


@dataclass
class Connected:
    """A project in a real Label Studio, connected to a running server of ours."""

    bench: Bench
    label_studio: RunningLabelStudio
    studio: LabelStudio
    project: int
    backend: int

    def add(self, *urls: str) -> list[int]:
        """Tasks with these image URLs."""
        return self.studio.import_tasks(self.project, [{"image": url} for url in urls])

    def add_images(self, *found: Image) -> list[int]:
        """Tasks of images in our store."""
        return self.add(*[f"/data/local-files/?d={image.file}" for image in found])

    def open(self, task: int) -> list[dict[str, Any]]:
        """Open a task as the editor does; the predictions it then has."""
        opened: dict[str, Any] = self.studio.transport.get(f"/api/tasks/{task}/", project=self.project)
        return list(opened["predictions"])

    def retrieve(self) -> str:
        """The Data Manager's "Retrieve predictions" of all tasks; what the user is told."""
        body = {"selectedItems": {"all": True, "excluded": []}}
        path = f"/api/dm/actions?id=retrieve_tasks_predictions&project={self.project}"
        return str(self.studio.transport.post(path, body)["detail"])

    def events(self) -> list[str]:
        """Actions of the webhooks we have stored."""
        with self.bench.database.session(read_only=True) as session:
            return [event.action for event in inbox.unhandled(session)]


@pytest.fixture
def connected(label_studio: RunningLabelStudio, tmp_path: Path, sqlite_url: str) -> Iterator[Connected]:
    bench = Bench(
        tmp_path / "home", sqlite_url, label_studio_url=label_studio.url, label_studio_token=label_studio.token
    )
    studio = label_studio.client()
    with running(create_app(bench.settings, loader=bench.pairs)) as url:
        project = studio.create_project("the server is called", default_config()).id
        backend = ensure_ml_backend(studio, project, url, *bench.basic)
        ensure_webhook(studio, project, f"{url}/webhook", bench.credentials.webhook_headers)
        yield Connected(bench, label_studio, studio, project, backend)
    studio.delete_project(project)
    bench.database.dispose()


def test_a_task_is_asked_about_until_there_is_an_answer(connected: Connected) -> None:
    image = connected.bench.add_image(1)
    task, outside = connected.add(f"/data/local-files/?d={image.file}", "/data/local-files/?d=../credentials.json")
    assert connected.open(task) == [], "no model yet: nothing is stored, not even an empty answer"
    row = connected.bench.activate_pair()
    (prediction,) = connected.open(task)
    assert (prediction["model_version"], prediction["score"]) == (row.name, 1.0)
    assert len(prediction["result"]) == 2
    assert prediction["result"][0]["score"] > 0.5
    assert connected.open(outside) == []
    assert connected.open(task) == [prediction]


def test_retrieving_stores_what_is_known_and_leaves_the_rest(connected: Connected) -> None:
    good, empty = connected.bench.add_image(1), connected.bench.add_image(2, cells=0)
    row = connected.bench.activate_pair()
    tasks = connected.add_images(good, empty) + connected.add("/data/local-files/?d=images/missing.png")
    connected.retrieve()
    stored = {task.id: task.predictions for task in map(connected.studio.task, tasks) if task is not None}
    assert [[len(p.result) for p in stored[task]] for task in tasks] == [[2], [0], []]
    connected.bench.promote_infected()
    connected.retrieve()
    latest = connected.bench.active().name
    assert {prediction["model_version"] for prediction in connected.open(tasks[0])} == {row.name, latest}


def test_an_upload_is_fetched_with_our_token(connected: Connected) -> None:
    connected.bench.activate_pair()
    answer = httpx.post(
        f"{connected.label_studio.url}/api/projects/{connected.project}/import",
        files={"smear.png": ("smear.png", png(9, cells=3), "image/png")},
        headers={"Authorization": f"Token {connected.label_studio.token}"},
    )
    assert answer.status_code == 201, answer.text
    (task,) = connected.studio.task_ids(connected.project)
    (prediction,) = connected.open(task)
    assert len(prediction["result"]) == 3
    with connected.bench.database.session(read_only=True) as session:
        (image,) = images.by_split(session, "train")
    assert image.dataset == "label-studio"
    assert connected.bench.store.read(image.file, image.sha256) == png(9, cells=3)


def test_submitting_and_start_training_wake_us_up(connected: Connected) -> None:
    (task,) = connected.add_images(connected.bench.add_image(1))
    connected.label_studio.expert().submit(task, [])
    assert connected.events() == ["ANNOTATION_CREATED"]
    connected.studio.transport.post(f"/api/ml/{connected.backend}/train", {})
    assert connected.events() == ["ANNOTATION_CREATED", "START_TRAINING"]


def test_it_goes_on_calling_us_while_secrets_are_rotated(connected: Connected) -> None:
    image = connected.bench.add_image(1)
    connected.bench.activate_pair()
    first, second, third = connected.add_images(image) + connected.add_images(*map(connected.bench.add_image, (2, 3)))
    new = begin_rotation(connected.bench.settings.home)
    assert connected.open(first), "it knows the old password"
    url = connected.studio.transport.get(f"/api/ml/{connected.backend}")["url"]
    ensure_ml_backend(connected.studio, connected.project, url, new.basic_user, new.basic_password)
    ensure_webhook(connected.studio, connected.project, f"{url}/webhook", new.webhook_headers)
    assert connected.open(second)
    end_rotation(connected.bench.settings.home)
    assert connected.open(third), "it knows the new one"
    connected.label_studio.expert().submit(third, [])
    assert connected.events() == ["ANNOTATION_CREATED"]
