"""Label Studio in memory: a second implementation of what `backend/label_studio/client.py` promises.

Facts it keeps from the real server: which actions move a task's `updated_at`, that imports are not idempotent, that
an annotation loses its `parent_prediction` with the prediction, and the order and locks of the next task.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from backend.errors import LabelStudioRefused, LabelStudioUnavailable
from backend.label_studio.label_config import parse
from backend.label_studio.protocol import Annotation, Prediction, Project, Task, User
from tests.fake_placing import FakePlacing

URL = "http://label-studio.test"
TICK = timedelta(milliseconds=1)


@dataclass
class StoredTask:
    """A task: its data, its project and when it last changed. closed: counts as answered, whatever is on it."""

    project: int
    data: dict[str, Any]
    updated_at: datetime
    closed: bool = False


@dataclass
class StoredProject:
    """A project and who has which of its tasks open."""

    title: str
    label_config: str
    model_version: str | None = None
    locks: dict[int, int] = field(default_factory=dict)  # user -> task


class FakeLabelStudio(FakePlacing):
    """The server and its client in one. `clock` may be set; it advances by a millisecond per change.

    down: nobody answers. crash_after: names of methods whose next call stores everything and then loses its answer.
    on_call: told the name of each client method before it does anything. on_task: told each task just read.
    """

    def __init__(self, url: str = URL) -> None:
        self.url = url
        self.clock = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
        self.stored_projects: dict[int, StoredProject] = {}
        self.tasks: dict[int, StoredTask] = {}
        self.annotations: dict[int, Annotation] = {}
        self.predictions: dict[int, Prediction] = {}
        self.drafts: dict[int, tuple[int, list[Any]]] = {}
        self.emails = {1: "ada@example.org", 2: "ben@example.org"}
        self.calls: list[str] = []
        self.down = False
        self.crash_after: set[str] = set()
        self.on_call: Callable[[str], None] = lambda name: None
        self.on_task: Callable[[int], None] = lambda task_id: None
        self.ids = count(1)

    # --- what the tests steer -----------------------------------------------------------------------------

    def moment(self) -> datetime:
        """The time of a change; no two are alike."""
        self.clock += TICK
        return self.clock

    def delete_task(self, task_id: int) -> None:
        """Somebody deletes a task with everything on it."""
        del self.tasks[task_id]
        self.annotations = {key: a for key, a in self.annotations.items() if a.task != task_id}
        self.predictions = {key: p for key, p in self.predictions.items() if p.task != task_id}

    def of_version(self, version: str | None) -> dict[int, list[Prediction]]:
        """Predictions of a version by task."""
        found: dict[int, list[Prediction]] = {}
        for prediction in self.predictions.values():
            if prediction.model_version == version and prediction.task is not None:
                found.setdefault(prediction.task, []).append(prediction)
        return found

    def annotations_of(self, task_id: int) -> list[Annotation]:
        """A task's annotations, oldest first."""
        return [annotation for annotation in self.annotations.values() if annotation.task == task_id]

    def _called(self, name: str) -> None:
        self.on_call(name)
        self.calls.append(name)
        if self.down:
            raise LabelStudioUnavailable(f"{self.url}: expected an answer, nobody listens; start Label Studio")

    def _answered(self, name: str) -> None:
        if name in self.crash_after:
            self.crash_after.discard(name)
            raise LabelStudioUnavailable(f"{self.url}: expected an answer to {name}, the connection broke")

    # --- who and what -------------------------------------------------------------------------------------

    @property
    def answered_at(self) -> datetime:
        return self.clock

    def version(self) -> str:
        self._called("version")
        return "fake"

    def whoami(self) -> User:
        self._called("whoami")
        return User(id=1, email=self.emails[1])

    def users(self) -> dict[int, str]:
        self._called("users")
        return dict(self.emails)

    # --- projects -----------------------------------------------------------------------------------------

    def projects(self, title: str) -> list[Project]:
        self._called("projects")
        return [self._project(key) for key, row in sorted(self.stored_projects.items()) if row.title == title]

    def project(self, project_id: int) -> Project:
        self._called("project")
        return self._project(project_id)

    def _project(self, project_id: int) -> Project:
        if project_id not in self.stored_projects:
            raise LabelStudioRefused(f"project {project_id}: not found")
        row = self.stored_projects[project_id]
        return Project(id=project_id, title=row.title, label_config=row.label_config, model_version=row.model_version)

    def has_project(self, project_id: int) -> bool:
        self._called("has_project")
        return project_id in self.stored_projects

    def create_project(self, title: str, label_config: str, **fields: Any) -> Project:
        self._called("create_project")
        project_id = next(self.ids)
        self.stored_projects[project_id] = StoredProject(title, label_config)
        return self._project(project_id)

    def set_model_version(self, project_id: int, name: str) -> None:
        self._called("set_model_version")
        if not self.model_versions(project_id).get(name):
            raise LabelStudioRefused(f"model_version: no prediction of {name!r} in project {project_id}")
        self.stored_projects[project_id].model_version = name

    # --- tasks --------------------------------------------------------------------------------------------

    def import_tasks(self, project_id: int, data: Sequence[Mapping[str, Any]]) -> list[int]:
        self._called("import_tasks")
        ids = [next(self.ids) for _ in data]
        for task_id, item in zip(ids, data, strict=True):
            self._store_task(task_id, project_id, item)
        self._answered("import_tasks")
        return ids

    def _store_task(self, task_id: int, project_id: int, data: Mapping[str, Any], closed: bool = False) -> None:
        self.tasks[task_id] = StoredTask(project_id, dict(data), self.moment(), closed)

    def task_ids(self, project_id: int) -> set[int]:
        self._called("task_ids")
        return {task_id for task_id, task in self.tasks.items() if task.project == project_id}

    def task_times(self, project_id: int) -> dict[int, datetime]:
        return {task_id: self.tasks[task_id].updated_at for task_id in self.task_ids(project_id)}

    def tasks_since(self, project_id: int, since: datetime | None = None) -> Iterator[Task]:
        self._called("tasks_since")
        self._project(project_id)
        last = 0
        while True:
            later = [t for t, row in self.tasks.items() if t > last and row.project == project_id]
            changed = [t for t in later if since is None or self.tasks[t].updated_at >= since]
            if not changed:
                return
            last = min(changed)
            now = self.read(last)
            self.on_task(last)
            yield now

    def task(self, task_id: int) -> Task | None:
        self._called("task")
        if task_id not in self.tasks:
            return None
        held = [p for p in self.predictions.values() if p.task == task_id]
        return self.read(task_id).model_copy(update={"predictions": held})

    def read(self, task_id: int) -> Task:
        row = self.tasks[task_id]
        annotations = [annotation.model_copy(deep=True) for annotation in self.annotations_of(task_id)]
        return Task(id=task_id, data=dict(row.data), updated_at=row.updated_at, annotations=annotations)

    # --- predictions --------------------------------------------------------------------------------------

    def import_predictions(self, project_id: int, predictions: Sequence[Mapping[str, Any]]) -> int:
        self._called("import_predictions")
        if unknown := [p["task"] for p in predictions if p["task"] not in self.task_ids(project_id)]:
            raise LabelStudioRefused(f"import of predictions: task ID {unknown[0]} not found in project {project_id}")
        regions = any(item["result"] for item in predictions)
        control_named = parse(self.stored_projects[project_id].label_config).control_named if regions else {}.get
        valid = [item for item in predictions if _valid(item, control_named)]
        for item in valid:
            prediction_id = next(self.ids)
            self.predictions[prediction_id] = Prediction(id=prediction_id, **deepcopy(dict(item)))
        self._answered("import_predictions")
        if len(valid) != len(predictions):
            raise LabelStudioRefused(f"import of predictions: expected {len(predictions)}, stored {len(valid)}")
        return len(valid)

    def prediction_ids(self, project_id: int, version: str) -> dict[int, int]:
        self._called("prediction_ids")
        here = self.task_ids(project_id)
        return {task: max(p.id for p in held) for task, held in self.of_version(version).items() if task in here}

    def prediction(self, prediction_id: int) -> Prediction | None:
        self._called("prediction")
        return self.predictions.get(prediction_id)

    def set_scores(self, scores: Mapping[int, float]) -> list[int]:
        self._called("set_scores")
        for prediction_id, score in scores.items():
            prediction = self.predictions.get(prediction_id)
            if prediction is not None and prediction.task is not None:
                self.predictions[prediction_id] = prediction.model_copy(update={"score": score})
                self.tasks[prediction.task].updated_at = self.moment()
        self._answered("set_scores")
        return [prediction_id for prediction_id in scores if prediction_id not in self.predictions]

    def model_versions(self, project_id: int) -> dict[str, int]:
        self._called("model_versions")
        here = [p for p in self.predictions.values() if p.task in self.task_ids(project_id)]
        return {name: sum(p.model_version == name for p in here) for name in {p.model_version or "" for p in here}}

    def delete_version(self, project_id: int, version: str) -> int:
        self._called("delete_version")
        gone = {p.id for p in self.predictions.values() if p.model_version == version}
        self.predictions = {key: p for key, p in self.predictions.items() if key not in gone}
        for key, annotation in self.annotations.items():
            if annotation.parent_prediction in gone:
                self.annotations[key] = annotation.model_copy(update={"parent_prediction": None})
        if self.stored_projects[project_id].model_version == version:
            self.stored_projects[project_id].model_version = None
        return len(gone)


def _valid(item: Mapping[str, Any], control_named: Callable[[str], Any]) -> bool:
    def known(region: Mapping[str, Any]) -> bool:
        control = control_named(str(region["from_name"]))
        return control is not None and set(region["value"][f"{control.kind}labels"]) <= set(control.labels)

    return 0.0 <= item["score"] <= 1.0 and all(known(region) for region in item["result"])
