"""An expert at a Label Studio in memory: what `backend/label_studio/expert.py` promises."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from backend.errors import LabelStudioRefused
from backend.label_studio.expert import ExpertSession
from backend.label_studio.protocol import Annotation, Task
from tests.fake_label_studio import FakeLabelStudio


class FakeExpert(ExpertSession):
    """One user of a FakeLabelStudio."""

    def __init__(self, server: FakeLabelStudio, user: int) -> None:
        self.server, self.user = server, user

    def next_task(self, project_id: int) -> Task | None:
        server, project = self.server, self.server.stored_projects[project_id]
        locked = project.locks.get(self.user)
        taken = {task for user, task in project.locks.items() if user != self.user}
        waiting = [t for t, row in server.tasks.items() if row.project == project_id and self._open(t)]
        if locked not in waiting:
            held = server.of_version(project.model_version)
            # Without a prediction of the version: after all the others, in any order; newest first is one.
            order = {t: (0, min(p.score or 0.0 for p in held[t]), t) if t in held else (1, 0.0, -t) for t in waiting}
            free = sorted((t for t in waiting if t not in taken), key=order.__getitem__)
            if not free:
                return None
            locked = project.locks[self.user] = free[0]
        shown = deepcopy(server.of_version(project.model_version).get(locked, []))
        return server.read(locked).model_copy(update={"predictions": shown})

    def _open(self, task_id: int) -> bool:
        if self.server.tasks[task_id].closed:
            return False
        there = self.server.annotations_of(task_id)
        mine = any(annotation.completed_by == self.user for annotation in there)
        return not mine and not any(not annotation.was_cancelled for annotation in there)

    def submit(
        self,
        task_id: int,
        result: Sequence[Any],
        *,
        parent_prediction: int | None = None,
        lead_time_s: float | None = None,
        was_cancelled: bool = False,
    ) -> Annotation:
        server = self.server
        if task_id not in server.tasks or (parent_prediction and parent_prediction not in server.predictions):
            raise LabelStudioRefused(f"task {task_id}, parent_prediction {parent_prediction}: does not exist")
        moment = server.moment()
        annotation = Annotation(
            id=next(server.ids),
            task=task_id,
            completed_by=self.user,
            result=deepcopy(list(result)),
            was_cancelled=was_cancelled,
            lead_time=lead_time_s,
            parent_prediction=parent_prediction,
            created_at=moment,
            updated_at=moment,
        )
        server.annotations[annotation.id] = annotation
        server.tasks[task_id].updated_at = server.moment()  # the real one saves the annotation first, too
        project = server.stored_projects[server.tasks[task_id].project]
        if project.locks.get(self.user) == task_id:
            del project.locks[self.user]
        return annotation

    def update(self, annotation_id: int, result: Sequence[Any], lead_time_s: float | None = None) -> Annotation:
        return self._change(annotation_id, result=deepcopy(list(result)))

    def unskip(self, annotation_id: int, result: Sequence[Any]) -> Annotation:
        """Submit one's skipped annotation after all."""
        return self._change(annotation_id, result=deepcopy(list(result)), was_cancelled=False)

    def _change(self, annotation_id: int, **fields: Any) -> Annotation:
        server = self.server
        changed = server.annotations[annotation_id].model_copy(update={**fields, "updated_at": server.moment()})
        server.annotations[annotation_id] = changed
        server.tasks[changed.task or 0].updated_at = server.moment()
        return changed

    def delete(self, annotation_id: int) -> None:
        task_id = self.server.annotations.pop(annotation_id).task or 0
        self.server.tasks[task_id].updated_at = self.server.moment()

    def convert_to_draft(self, annotation_id: int) -> int:
        annotation = self.server.annotations[annotation_id]
        self.delete(annotation_id)
        return self.save_draft(annotation.task or 0, annotation.result)

    def save_draft(self, task_id: int, result: Sequence[Any]) -> int:
        draft_id = next(self.server.ids)
        self.server.drafts[draft_id] = (task_id, deepcopy(list(result)))
        return draft_id
