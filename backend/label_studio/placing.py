"""What steers an expert's stream of tasks: annotations that we place ourselves, and tasks that come and go.

Label Studio never gives a task to a user who has an annotation on it, cancelled or not, and gives a task with an
annotation that is not cancelled to nobody. Both hold for annotations that we make in somebody's name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backend.errors import LabelStudioRefused
from backend.label_studio.pages import task_pages
from backend.label_studio.protocol import Task
from backend.label_studio.transport import Transport

PAGE = 500


@dataclass(frozen=True)
class NewTask:
    """A task to make: its data, the score it is ordered by, and the users (ids) it is not for."""

    data: Mapping[str, Any]
    score: float
    not_for: Sequence[int] = ()


class Placing:
    """Half of `LabelStudio` (client.py), which see for the errors."""

    transport: Transport

    def import_ordered_tasks(self, project_id: int, tasks: Sequence[NewTask], version: str) -> None:
        """Make tasks, each with an empty prediction of this version that carries its score, in one transaction.

        A task that is not for somebody comes with a cancelled annotation of theirs, and is given to nobody until
        `open_task`: Label Studio counts imported annotations as answers, cancelled ones too. Not idempotent, and
        returns no ids: ask `tasks_after`.
        """
        if not tasks:
            return
        body = [
            {
                "data": dict(task.data),
                "predictions": [{"model_version": version, "score": task.score, "result": []}],
                "annotations": [{"result": [], "was_cancelled": True, "completed_by": user} for user in task.not_for],
            }
            for task in tasks
        ]
        answer = self.transport.post(f"/api/projects/{project_id}/import", body)
        if (answer.get("task_count"), answer.get("prediction_count")) != (len(tasks), len(tasks)):
            raise LabelStudioRefused(
                f"import of tasks: expected {len(tasks)} tasks with a prediction each, Label Studio made "
                f"{answer.get('task_count')} with {answer.get('prediction_count')}"
            )

    def tasks_after(self, project_id: int, task_id: int) -> Iterator[Task]:
        """Tasks made after this one, by id, with their annotations and predictions."""
        names = "id,data,predictions,annotations,task,model_version,score,result,completed_by,was_cancelled,lead_time"
        params = {"fields": "all", "include": f"{names},created_at,updated_at"}
        for item in task_pages(self.transport, project_id, [], params, PAGE, task_id):
            yield Task.model_validate(item)

    def open_task(self, annotation_ids: Sequence[int]) -> None:
        """Let a task be given to everybody but those who made these cancelled annotations: saved again, Label Studio
        counts them as what they are."""
        for annotation_id in annotation_ids:
            body = {"result": [], "was_cancelled": True}
            self.transport.request("PATCH", f"/api/annotations/{annotation_id}/", body=body, none_on_404=True)

    def set_task_data(self, task_id: int, data: Mapping[str, Any]) -> bool:
        """Change a task's data; False when it is gone. It moves `updated_at`."""
        body = {"data": dict(data)}
        return self.transport.request("PATCH", f"/api/tasks/{task_id}/", body=body, none_on_404=True) is not None

    def delete_tasks(self, project_id: int, task_ids: Sequence[int]) -> None:
        """Delete tasks of a project with everything on them; what is gone already is fine.

        Whoever has one of them open can no longer submit. A file that people uploaded with a task stays in Label
        Studio's media folder, and no API removes it there.
        """
        if task_ids:
            body = {"project": project_id, "selectedItems": {"all": False, "included": list(task_ids)}}
            params = {"id": "delete_tasks", "project": project_id}
            self.transport.request("POST", "/api/dm/actions/", params=params, body=body)

    def place_annotation(
        self, task_id: int, result: Sequence[Any], user: int, *, cancelled: bool = False
    ) -> int | None:
        """An annotation in this user's name, without a lead time; its id, None when the task is gone.

        Nobody is given the task any more; only this user is not, when it is cancelled. Whoever has the task open may
        still submit.
        """
        body = {"result": list(result), "was_cancelled": cancelled, "completed_by": user}
        answer = self.transport.request("POST", f"/api/tasks/{task_id}/annotations/", body=body, none_on_404=True)
        return None if answer is None else int(answer["id"])

    def remove_annotation(self, annotation_id: int) -> None:
        """Delete an annotation; what is gone already is fine."""
        self.transport.delete(f"/api/annotations/{annotation_id}/")

    def set_result(self, prediction_id: int, result: Sequence[Any]) -> bool:
        """Change what a prediction shows; False when it is gone. An editor that shows the older one may submit."""
        body = {"result": list(result)}
        path = f"/api/predictions/{prediction_id}/"
        return self.transport.request("PATCH", path, body=body, none_on_404=True) is not None
