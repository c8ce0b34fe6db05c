"""A scripted expert who writes a diary: what they said on which task, whatever breaks meanwhile.

Like a person, they try again when Label Studio does not answer, and look first whether their answer is there already.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from backend.errors import LabelStudioRefused, LabelStudioUnavailable
from backend.instances import CLASSES, DIFFICULT
from backend.label_studio.cell_config import NOT_A_CELL, parse_cells, result_of
from backend.label_studio.client import LabelStudio
from backend.label_studio.expert import ExpertSession
from backend.label_studio.label_config import parse
from backend.label_studio.protocol import Annotation, Task
from backend.label_studio.regions import RegionCell, to_regions
from db.models import Project, Way

LABELS = (*CLASSES, DIFFICULT)
Intention = Callable[[], bool]  # one attempt; True when it is done


@dataclass
class Entry:
    """One annotation: every state the expert gave it (result; None for a skip), oldest first. gone: deleted since."""

    project: int
    task: int
    states: list[list[Any] | None]
    gone: bool = False


@dataclass
class Diary:
    """Entries by annotation id. looks: how often the expert has asked or told Label Studio something."""

    entries: dict[int, Entry] = field(default_factory=dict)

    def live(self, project: int) -> list[int]:
        """Annotations that the expert stands by."""
        return [number for number, entry in self.entries.items() if entry.project == project and not entry.gone]

    def task_is_gone(self, task: int) -> None:
        """Somebody deleted a task with everything on it."""
        for entry in self.entries.values():
            if entry.task == task:
                entry.gone = True


class DiaryExpert:
    """Acts at random, drawn from `rng`. Unfinished intentions wait until `finish`. user: the expert's id."""

    def __init__(self, expert: ExpertSession, client: LabelStudio, user: int) -> None:
        self._expert, self._client, self._user = expert, client, user
        self.rng = random.Random()
        self.diary = Diary()
        self.unfinished: list[tuple[int, Intention]] = []  # (annotation it is about or 0, what to do)

    def act(self, project: Project, most: int) -> str:
        """Answer the next task, or change or delete an answer; at most about `most` answers stand. What was tried."""
        busy = {number for number, _ in self.unfinished}
        free = [number for number in self.diary.live(project.ls_project_id) if number not in busy]
        roll = self.rng.random()
        if free and (len(free) >= most or roll < 0.15):
            return self._try("delete", *self._deletion(self.rng.choice(free)))
        said = [number for number in free if self.diary.entries[number].states[-1] is not None]
        if said and roll < 0.4:
            return self._try("edit", *self._edit(project, self.rng.choice(said)))
        return self._try("answer", 0, self._answer(project))

    def finish(self) -> bool:
        """Try what is unfinished once more; whether all of it is done now."""
        self.unfinished = [(number, intention) for number, intention in self.unfinished if not self._attempt(intention)]
        return not self.unfinished

    def delete(self, number: int) -> None:
        """Delete this annotation."""
        self._try("delete", *self._deletion(number))

    def _try(self, what: str, number: int, intention: Intention) -> str:
        if self._attempt(intention):
            return what
        self.unfinished.append((number, intention))
        return f"{what} (later)"

    def _attempt(self, intention: Intention) -> bool:
        try:
            return intention()
        except LabelStudioUnavailable:
            return False

    def _deletion(self, number: int) -> tuple[int, Intention]:
        entry, as_draft = self.diary.entries[number], self.rng.random() < 0.2

        def delete() -> bool:
            try:
                if as_draft:
                    self._expert.convert_to_draft(number)
                else:
                    self._expert.delete(number)
            except LabelStudioRefused:
                pass  # it is gone: an earlier attempt did it, or its task was deleted
            entry.gone = True
            return True

        return number, delete

    def _edit(self, project: Project, number: int) -> tuple[int, Intention]:
        entry = self.diary.entries[number]
        result = self._changed(project, entry.states[-1] or [], None)

        def edit() -> bool:
            if entry.gone:
                return True
            try:
                self._expert.update(number, result, lead_time_s=self.rng.uniform(1, 9))
            except LabelStudioRefused:
                return True  # its task was deleted meanwhile
            entry.states.append(result)
            return True

        return number, edit

    def _answer(self, project: Project) -> Intention:
        open_task: list[Task] = []

        def answer() -> bool:
            if open_task and self._adopt(project, open_task[0].id):
                return True
            task = self._expert.next_task(project.ls_project_id)
            if task is None:
                return True
            open_task[:] = [task]
            result = None if self.rng.random() < 0.05 else self._changed(project, _shown(task), task)
            parent = task.predictions[-1].id if task.predictions else None
            try:
                made = self._expert.submit(
                    task.id,
                    result or [],
                    parent_prediction=parent,
                    lead_time_s=self.rng.uniform(1, 60),
                    was_cancelled=result is None,
                )
            except LabelStudioRefused:
                return False  # the prediction or the task went while it was open: once more
            self.diary.entries[made.id] = Entry(project.ls_project_id, task.id, [result])
            return True

        return answer

    def _adopt(self, project: Project, task_id: int) -> bool:
        """Whether the answer got through although nobody said so: the page, opened again, shows it."""
        there = self._client.task(task_id)
        for made in there.annotations if there is not None else []:
            if made.id not in self.diary.entries and self._mine(made):
                state = None if made.was_cancelled else made.result
                self.diary.entries[made.id] = Entry(project.ls_project_id, task_id, [state])
                return True
        return False

    def _mine(self, annotation: Annotation) -> bool:
        return annotation.completed_by == self._user and annotation.lead_time is not None

    def _changed(self, project: Project, result: list[Any], task: Task | None) -> list[Any]:
        if project.way == Way.cell:
            return result_of(self.rng.choice([*LABELS, NOT_A_CELL]), parse_cells(project.label_config))
        config, rng = parse(project.label_config), self.rng
        changed = deepcopy(result)
        if changed and rng.random() < 0.4:
            changed.pop(rng.randrange(len(changed)))
        for region in rng.sample(changed, min(len(changed), rng.randint(0, 2))):
            key = next(name for name in region["value"] if name.endswith("labels"))
            region["value"][key] = [rng.choice(LABELS)]
        if task is not None and rng.random() < 0.6:
            height, width = int(task.data["height"]), int(task.data["width"])
            left, top = rng.uniform(0, width - 24), rng.uniform(0, height - 24)
            box = (left, top, left + rng.uniform(8, 20), top + rng.uniform(8, 20))
            cell = RegionCell(uuid.UUID(int=rng.getrandbits(128)).hex[:10], box, rng.choice(LABELS), 1.0)
            changed += [region | {"origin": "manual"} for region in to_regions([cell], config, (height, width))]
        return changed


def _shown(task: Task) -> list[Any]:
    return task.predictions[-1].result if task.predictions else []
