"""Small projects in a real Label Studio, for the tests of this folder."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import Any

from backend.label_studio.client import LabelStudio
from backend.label_studio.expert import ExpertSession
from backend.label_studio.label_config import default_config, parse
from backend.label_studio.protocol import Task
from backend.label_studio.regions import RegionCell, to_regions
from tests.label_studio_fixture import RunningLabelStudio

SIZE = (480, 640)
_numbers = count(1)


@dataclass(frozen=True)
class SmallProject:
    """A project with tasks and, per version pushed, one prediction of one cell in each."""

    studio: LabelStudio
    expert: ExpertSession
    id: int
    tasks: list[int]

    def push(self, version: str, scores: dict[int, float]) -> int:
        """Import a prediction of this version into each task."""
        items = [
            {"task": task, "model_version": version, "score": score, "result": one_cell(f"cell{task}")}
            for task, score in scores.items()
        ]
        return self.studio.import_predictions(self.id, items)

    def serve(self, version: str, scores: dict[int, float]) -> None:
        """Push and make it the version that is shown and ordered by."""
        self.push(version, scores)
        self.studio.set_model_version(self.id, version)

    def walk(self, n: int) -> list[int]:
        """Submit the next n tasks; their ids in the order they came."""
        order = []
        for _ in range(n):
            task = self.expert.next_task(self.id)
            if task is None:
                break
            self.expert.submit(task.id, [])
            order.append(task.id)
        return order

    def state(self, task_id: int) -> Task:
        """The task as polling gives it."""
        return next(task for task in self.studio.tasks_since(self.id) if task.id == task_id)


def one_cell(key: str, label: str = "ring", left: float = 10.0) -> list[dict[str, Any]]:
    """A result of one region."""
    cell = RegionCell(key, (left, 20.0, left + 50.0, 60.0), label, 0.75, "the models disagree")
    return to_regions([cell], parse(default_config()), SIZE)


def small_project(label_studio: RunningLabelStudio, tasks: int) -> SmallProject:
    """A fresh project with this many tasks."""
    studio = label_studio.client()
    project = studio.create_project(f"test {next(_numbers)}", default_config())
    ids = studio.import_tasks(project.id, [{"image": f"/data/local-files/?d=images/{i}.png"} for i in range(tasks)])
    return SmallProject(studio, label_studio.expert(), project.id, ids)
