"""What `backend/label_studio/placing.py` promises, in memory: half of `FakeLabelStudio`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from datetime import datetime
from typing import Any

from backend.label_studio.client import LabelStudio
from backend.label_studio.placing import NewTask
from backend.label_studio.protocol import Annotation, Prediction, Task


class FakePlacing(LabelStudio):
    """Facts it keeps: imported cancelled annotations close a task until one of them is saved again; placed ones have
    no lead time and move `updated_at`; a user with any annotation on a task is not given it."""

    tasks: dict[int, Any]
    annotations: dict[int, Annotation]
    predictions: dict[int, Prediction]
    ids: Iterator[int]

    _called: Callable[[str], None]
    _answered: Callable[[str], None]
    _store_task: Callable[..., None]
    moment: Callable[[], datetime]
    read: Callable[[int], Task]
    delete_task: Callable[[int], None]

    def import_ordered_tasks(self, project_id: int, tasks: Sequence[NewTask], version: str) -> None:
        self._called("import_ordered_tasks")
        for task in tasks:
            task_id = next(self.ids)
            self._store_task(task_id, project_id, task.data, closed=bool(task.not_for))
            prediction_id = next(self.ids)
            self.predictions[prediction_id] = Prediction(
                id=prediction_id, task=task_id, model_version=version, score=task.score, result=[]
            )
            for user in task.not_for:
                self._annotate(task_id, [], user, cancelled=True)
        self._answered("import_ordered_tasks")

    def _annotate(self, task_id: int, result: Sequence[Any], user: int, cancelled: bool) -> int:
        moment = self.moment()
        annotation = Annotation(
            id=next(self.ids),
            task=task_id,
            completed_by=user,
            result=deepcopy(list(result)),
            was_cancelled=cancelled,
            created_at=moment,
            updated_at=moment,
        )
        self.annotations[annotation.id] = annotation
        return annotation.id

    def tasks_after(self, project_id: int, task_id: int) -> Iterator[Task]:
        self._called("tasks_after")
        for later in [t for t, row in sorted(self.tasks.items()) if t > task_id and row.project == project_id]:
            held = [p for p in self.predictions.values() if p.task == later]
            yield self.read(later).model_copy(update={"predictions": held})

    def open_task(self, annotation_ids: Sequence[int]) -> None:
        self._called("open_task")
        for annotation_id in annotation_ids:
            if annotation_id in self.annotations:
                row = self.tasks[self.annotations[annotation_id].task or 0]
                row.closed, row.updated_at = False, self.moment()
        self._answered("open_task")

    def set_task_data(self, task_id: int, data: Mapping[str, Any]) -> bool:
        self._called("set_task_data")
        if task_id not in self.tasks:
            return False
        self.tasks[task_id].data, self.tasks[task_id].updated_at = dict(data), self.moment()
        self._answered("set_task_data")
        return True

    def delete_tasks(self, project_id: int, task_ids: Sequence[int]) -> None:
        if task_ids:
            self._called("delete_tasks")
            for task_id in task_ids:
                if task_id in self.tasks and self.tasks[task_id].project == project_id:
                    self.delete_task(task_id)
            self._answered("delete_tasks")

    def place_annotation(
        self, task_id: int, result: Sequence[Any], user: int, *, cancelled: bool = False
    ) -> int | None:
        self._called("place_annotation")
        if task_id not in self.tasks:
            return None
        annotation_id = self._annotate(task_id, result, user, cancelled)
        self.tasks[task_id].updated_at = self.moment()
        self._answered("place_annotation")
        return annotation_id

    def remove_annotation(self, annotation_id: int) -> None:
        self._called("remove_annotation")
        gone = self.annotations.pop(annotation_id, None)
        if gone is not None:
            self.tasks[gone.task or 0].updated_at = self.moment()

    def set_result(self, prediction_id: int, result: Sequence[Any]) -> bool:
        self._called("set_result")
        held = self.predictions.get(prediction_id)
        if held is None:
            return False
        self.predictions[prediction_id] = held.model_copy(update={"result": deepcopy(list(result))})
        self.tasks[held.task or 0].updated_at = self.moment()
        self._answered("set_result")
        return True
