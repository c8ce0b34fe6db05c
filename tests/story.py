"""What the story tests share: one installation with a real Label Studio, our real processes, and the comparison of
SQL's current labels with Label Studio's truth."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from al_loop.connect import connect
from al_loop.context import Loop
from al_loop.first_models import train_here
from al_loop.import_images import import_images
from al_loop.preannotate_pool import preannotate_pool
from al_loop.push import push
from al_loop.rank import rank
from al_loop.rendered import write_coco_folder
from backend.credentials import load_credentials
from backend.label_studio.label_config import parse
from backend.label_studio.protocol import Task
from backend.label_studio.regions import from_regions
from backend.label_studio.transport import trusted
from backend.settings import Settings
from backend.store import FileStore
from db import images, labels, projects, reviews
from db.migrate import upgrade
from db.models import Project
from db.session import Database
from tests.label_studio_fixture import RunningLabelStudio, free_port

REPOSITORY = Path(__file__).resolve().parent.parent
SMEARS = 24


@dataclass
class Story:
    """One installation of cellloop beside the session's Label Studio. Processes are ended by `close`."""

    loop: Loop
    label_studio: RunningLabelStudio
    environment: dict[str, str]
    logs: Path
    children: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def project(self) -> Project:
        """Our project, freshly read."""
        with self.loop.database.session(read_only=True) as session:
            found = projects.project(session, self.label_studio.url)
        assert found is not None
        return found

    def start(self, verb: str) -> subprocess.Popen[bytes]:
        """A `cellloop` command as a process of its own."""
        with (self.logs / f"{verb}.log").open("ab") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", "scripts.cli", verb],
                cwd=REPOSITORY, env=os.environ | self.environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        self.children.append(child)
        return child

    def serve(self) -> subprocess.Popen[bytes]:
        """The backend, up."""
        child = self.start("serve")
        self.wait_for(lambda: self.health() == "UP", 60, "the backend")
        return child

    def health(self) -> str:
        """What the backend says of itself, "" while it does not answer."""
        credentials = self.loop.credentials
        login = (credentials.basic_user, credentials.basic_password)
        try:
            answer = httpx.get(f"{self.loop.settings.backend_url}/health", auth=login, timeout=2, verify=trusted())
        except httpx.HTTPError:
            return ""
        return str(answer.json().get("status"))

    def predicted_by(self, ls_task_id: int) -> str:
        """The pair whose answer the backend has for this task, as Label Studio asks it."""
        credentials, studio = self.loop.credentials, self.label_studio.client()
        task = studio.task(ls_task_id)
        assert task is not None
        answer = httpx.post(
            f"{self.loop.settings.backend_url}/predict",
            json={
                "tasks": [{"id": task.id, "data": task.data}],
                "project": f"{self.project.ls_project_id}.0",
                "label_config": self.project.label_config,
                "params": {},
            },
            auth=(credentials.basic_user, credentials.basic_password),
            timeout=30,
            verify=trusted(),
        )
        [result] = answer.raise_for_status().json()["results"]
        return str(result["model_version"])

    def wait_for(self, condition: Callable[[], bool], timeout_s: float, what: str) -> float:
        """Seconds until the condition held. Fails with the logs' ends when it does not."""
        began = time.monotonic()
        while not condition():
            if time.monotonic() - began > timeout_s:
                tails = [f"{log.name}: {log.read_text(errors='replace')[-1500:]}" for log in self.logs.glob("*.log")]
                raise AssertionError(f"{what}: not within {timeout_s} s\n" + "\n".join(tails))
            time.sleep(0.05)
        return time.monotonic() - began

    def kill(self, child: subprocess.Popen[bytes]) -> None:
        """kill -9, and wait until it is gone."""
        child.send_signal(signal.SIGKILL)
        child.wait(10)

    def close(self) -> None:
        """End every process; a polite one within its time."""
        for child in self.children:
            if child.poll() is None:
                child.terminate()
        for child in self.children:
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                self.kill(child)


QUICK = {
    "train_steps": "6",
    "short_side": "256",
    "train_crop": "160",
    "poll_s": "600",  # what comes within seconds came by webhook
    "retrain_after": "1000000",
    "retrain_cooldown_s": "0",
    # Detectors trained for seconds differ by chance; the stories are about the path, the gate has tests of its own.
    "gate_delta": "1",
    "gate_most_wrong": "1",
}


@pytest.fixture(scope="session")
def prepared(
    label_studio: RunningLabelStudio, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Path:
    """A SQLite file with smears imported, both models trained, the pool predicted and ranked: where stories begin."""
    folder = tmp_path_factory.mktemp("prepared")
    try:
        real = request.getfixturevalue("data_root")
    except pytest.skip.Exception:
        real = None
    with open_story(label_studio, folder, "prepared", None) as story:
        loop = story.loop
        import_images(loop.database, loop.store, some_smears(folder, real), label_share=0.3)
        for role in ("all_cells", "infected"):
            train_here(loop, role)
        preannotate_pool(loop)
        rank(loop.database)
    return folder / "story.sqlite"


@contextmanager
def pushed_story(label_studio: RunningLabelStudio, prepared: Path, folder: Path, title: str) -> Iterator[Story]:
    """A prepared installation with its backend up and everything pushed to a project of its own."""
    with open_story(label_studio, folder, title, prepared) as story:
        story.serve()
        project = connect(story.loop, story.loop.label_studio())
        push(story.loop, story.loop.label_studio(), project)
        yield story


@contextmanager
def open_story(label_studio: RunningLabelStudio, folder: Path, title: str, prepared: Path | None) -> Iterator[Story]:
    """An installation in Label Studio's home (whose files it may show), with a database of its own."""
    if prepared is not None:
        shutil.copy(prepared, folder / "story.sqlite")
    environment = {
        "CELLLOOP_HOME": str(label_studio.home),
        "CELLLOOP_DATABASE_URL": f"sqlite:///{folder / 'story.sqlite'}",
        "CELLLOOP_PORT": str(free_port()),
        "CELLLOOP_DEVICE": "cpu",
        "CELLLOOP_LABEL_STUDIO_URL": label_studio.url,
        "CELLLOOP_LABEL_STUDIO_TOKEN": label_studio.token,
        "CELLLOOP_LABEL_STUDIO_PROJECT": title,
        **{f"CELLLOOP_{name.upper()}": value for name, value in QUICK.items()},
    }
    values = {name.removeprefix("CELLLOOP_").lower(): value for name, value in environment.items()}
    configured = Settings(**values)  # type: ignore[arg-type]
    upgrade(configured.database_url)
    database = Database(configured.database_url)
    loop = Loop(configured, database, FileStore(configured.files), load_credentials(configured.home))
    story = Story(loop, label_studio, environment, folder)
    try:
        yield story
    finally:
        story.close()
        database.dispose()


def some_smears(folder: Path, real: Path | None) -> Path:
    """A BBBC041 folder of SMEARS real fields, the ones richest in infected cells first; rendered fields without any."""
    if real is None:
        return write_coco_folder(folder / "rendered", SMEARS)
    out = folder / "bbbc041"
    (out / "images").mkdir(parents=True)
    records = json.loads((real / "bbbc041" / "training.json").read_text())
    here = [r for r in records if (real / "bbbc041" / r["image"]["pathname"].lstrip("/")).is_file()]
    here.sort(key=lambda r: (-sum(o["category"] != "red blood cell" for o in r["objects"]), r["image"]["pathname"]))
    for record in here[:SMEARS]:
        name = record["image"]["pathname"].lstrip("/")
        shutil.copy(real / "bbbc041" / name, out / name)
    (out / "training.json").write_text(json.dumps(here[:SMEARS]))
    return out


def truth_of(story: Story, tasks: list[Task]) -> dict[tuple[int, str], tuple[str, tuple[int, ...]]]:
    """What Label Studio holds: (task, region) -> (label, box in whole px), of submitted annotations."""
    config = parse(story.project.label_config)
    found = {}
    for task in tasks:
        size = (task.data["height"], task.data["width"])
        for annotation in task.annotations:
            if annotation.was_cancelled:
                continue
            parsed = from_regions(annotation.result, config, size)
            assert not parsed.problems
            for region in parsed.regions:
                found[task.id, region.key] = (region.label, tuple(round(v) for v in region.box))
    return found


def labels_in_sql(story: Story) -> dict[tuple[int, str], tuple[str, tuple[int, ...]]]:
    """The same, as SQL's current labels by experts have it."""
    project = story.project
    with story.loop.database.session(read_only=True) as session:
        task_of = {task.image_id: task.ls_task_id for task in projects.tasks(session, project.id)}
        return {
            (task_of[live.image_id], live.key): (live.label, tuple(round(v) for v in live.box))
            for live in labels.current_labels(session)
            if live.expert != reviews.IMPORT_EXPERT and live.label is not None and live.box is not None
        }


def assert_same_truth(story: Story) -> None:
    """SQL's current labels are exactly Label Studio's truth."""
    tasks = list(story.label_studio.client().tasks_since(story.project.ls_project_id))
    assert labels_in_sql(story) == truth_of(story, tasks)


def image_name(story: Story, ls_task_id: int) -> str:
    """The name of a task's image."""
    with story.loop.database.session(read_only=True) as session:
        task = projects.task_of(session, story.project.id, ls_task_id=ls_task_id)
        assert task is not None
        return images.get(session, task.image_id).name
