"""Label Studio's projects and tasks as we know them, and what we pushed there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from db.chunks import chunks
from db.errors import NotFound, RecordError
from db.models import CellTask, ModelPair, Prediction, Project, Push, Task, Way, now


def upsert_project(
    session: Session, *, url: str, ls_project_id: int, title: str, label_config: str, way: Way = Way.field
) -> Project:
    """The project with this address and id, with its present title and labelling configuration."""
    query = select(Project).where(Project.url == url, Project.ls_project_id == ls_project_id)
    row = session.scalar(query)
    if row is None:
        row = Project(url=url, ls_project_id=ls_project_id, title=title, label_config=label_config)
        session.add(row)
    row.title, row.label_config, row.way = title, label_config, way
    session.flush()
    return row


def project(
    session: Session, url: str | None = None, ls_project_id: int | None = None, *, way: Way | None = None
) -> Project | None:
    """The newest project; with this address, or way of reviewing, when given.

    With a Label Studio id, that one. Without any of the last two, a project of whole fields.
    """
    query = select(Project).order_by(Project.id.desc()).limit(1)
    if way is not None or ls_project_id is None:
        query = query.where(Project.way == (way or Way.field))
    if url is not None:
        query = query.where(Project.url == url)
    if ls_project_id is not None:
        query = query.where(Project.ls_project_id == ls_project_id)
    return session.scalar(query)


def projects(session: Session, url: str | None = None) -> Sequence[Project]:
    """All projects of either way, oldest first; those at this address when given."""
    query = select(Project).order_by(Project.id)
    return session.scalars(query if url is None else query.where(Project.url == url)).all()


def ways(session: Session) -> set[Way]:
    """In which ways experts review here: fields always, cells where a project shows them."""
    return {Way.field, *session.scalars(select(Project.way).distinct())}


def get(session: Session, project_id: int) -> Project:
    """The project with this id (ours, not Label Studio's). Raises NotFound."""
    row = session.get(Project, project_id)
    if row is None:
        raise NotFound(f"expected a project with id {project_id}, found none: `cellloop label-studio connect`")
    return row


def add_tasks(session: Session, project_id: int, pairs: Iterable[tuple[int, int]]) -> list[Task]:
    """The tasks of these (Label Studio task id, image id); adding again changes nothing.

    A deleted task's image may come back under a new task id. Raises RecordError when its old task still lives.
    """
    known = {task.image_id: task for task in tasks(session, project_id, deleted=True)}
    result = []
    for ls_task_id, image_id in pairs:
        task = known.get(image_id)
        if task is None:
            task = known[image_id] = Task(project_id=project_id, ls_task_id=ls_task_id, image_id=image_id, placed=[])
            session.add(task)
        elif task.ls_task_id != ls_task_id:
            if task.deleted_at is None:
                raise RecordError(
                    f"image {image_id} has Label Studio task {task.ls_task_id} already, got {ls_task_id}: "
                    "delete one of the two tasks in Label Studio"
                )
            task.ls_task_id = ls_task_id
            task.pushed_prediction_id = task.pushed_ls_prediction_id = task.pushed_score = None
            task.pushed_revision_id, task.placed = None, []
        task.deleted_at = None
        result.append(task)
    session.flush()
    return result


def task_of(
    session: Session, project_id: int, *, image_id: int | None = None, ls_task_id: int | None = None
) -> Task | None:
    """The task of an image, or with this Label Studio id, deleted ones included."""
    if (image_id is None) == (ls_task_id is None):
        raise RecordError("expected either image_id or ls_task_id")
    query = select(Task).where(Task.project_id == project_id)
    if image_id is not None:
        return session.scalar(query.where(Task.image_id == image_id))
    return session.scalar(query.where(Task.ls_task_id == ls_task_id))


def tasks(session: Session, project_id: int, *, deleted: bool = False) -> Sequence[Task]:
    """The tasks of a project in Label Studio's order; with `deleted`, also those that are gone there."""
    query = select(Task).where(Task.project_id == project_id).order_by(Task.ls_task_id)
    return session.scalars(query if deleted else query.where(Task.deleted_at.is_(None))).all()


def mark_pushed(
    session: Session, task_id: int, prediction_id: int | None, ls_prediction_id: int | None, score: float | None
) -> None:
    """Note what Label Studio now holds of ours for this task (`task_id`: ours)."""
    task = session.get(Task, task_id)
    if task is None:
        raise NotFound(f"expected a task with id {task_id}, found none")
    if task.pushed_prediction_id != prediction_id:
        task.pushed_revision_id = None  # a fresh prediction shows what the models say
    task.pushed_prediction_id = prediction_id
    task.pushed_ls_prediction_id = ls_prediction_id
    task.pushed_score = None if score is None else float(score)
    session.flush()


def mark_shown(session: Session, task_id: int, marks: str, revision_id: int | None = None) -> None:
    """Note what this task's prediction in Label Studio shows (`task_id`: ours).

    marks: hash of its reasons. revision_id: all answers up to this one; None: as before.
    """
    task = session.get_one(Task, task_id)
    task.pushed_marks = marks
    task.pushed_revision_id = revision_id or task.pushed_revision_id
    session.flush()


def pushed_pair(session: Session, project_id: int, ls_prediction_id: int) -> str | None:
    """Name of the pair whose prediction we last pushed to this project under this Label Studio id.

    None for an older prediction, and for one that is not ours.
    """
    query = (
        select(ModelPair.name)
        .join(Prediction, Prediction.pair_id == ModelPair.id)
        .join(Task, Task.pushed_prediction_id == Prediction.id)
        .where(Task.project_id == project_id, Task.pushed_ls_prediction_id == ls_prediction_id)
    )
    return session.scalar(query)


def mark_deleted(session: Session, task_ids: Iterable[int]) -> int:
    """Note that these tasks (our ids) are gone in Label Studio; how many were alive."""
    count = 0
    for task_id in task_ids:
        task = session.get(Task, task_id)
        if task is not None and task.deleted_at is None:
            task.deleted_at = now()
            count += 1
    session.flush()
    return count


def add_push(
    session: Session, project_id: int, pair_id: int, ranking_id: int | None, predictions: int, rescored: int
) -> Push:
    """Record one push of predictions and order."""
    push = Push(
        project_id=project_id,
        pair_id=pair_id,
        ranking_id=ranking_id,
        predictions=predictions,
        rescored=rescored,
    )
    session.add(push)
    session.flush()
    return push


def pushes(session: Session, project_id: int) -> Sequence[Push]:
    """All pushes to a project, oldest first."""
    return session.scalars(select(Push).where(Push.project_id == project_id).order_by(Push.id)).all()


def set_cursor(session: Session, project_id: int, moment: datetime) -> None:
    """Everything Label Studio changed before this moment has been read."""
    get(session, project_id).synced_until = moment
    session.flush()


def mark_read(session: Session, project: Project, moments: Mapping[int, datetime]) -> None:
    """Note of these tasks, by Label Studio's ids, when it says they changed last: everything until then is recorded."""
    model: type[Any] = CellTask if project.way == Way.cell else Task
    for chunk in chunks(moments):
        query = select(model.id, model.ls_task_id, model.read_at).where(model.project_id == project.id)
        known = session.execute(query.where(model.ls_task_id.in_(chunk))).all()
        # Most were read a moment ago, as windows overlap.
        news = [{"id": row_id, "read_at": moments[task]} for row_id, task, at in known if at != moments[task]]
        if news:
            session.execute(update(model), news)


def mark_synced(session: Session, project_id: int) -> None:
    """A sync has just read everything there was to read."""
    get(session, project_id).synced_at = now()
    session.flush()
