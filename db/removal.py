"""Every row about an image, found by the foreign keys that lead to it: to be counted, and to be removed for good.

A table that is added later belongs to it without a word here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from sqlalchemy import ColumnElement, Table, delete, func, select
from sqlalchemy.orm import Session

from db.chunks import chunks
from db.ids import OUTLIVING
from db.models import Base, CellTask, Image, Task

IMAGES = Base.metadata.tables[Image.__tablename__]


def about(table: Table, image_ids: Collection[int]) -> ColumnElement[bool] | None:
    """The condition that a row of this table is about one of these images; None: the table knows of no images."""
    if table is IMAGES:
        return table.c.id.in_(image_ids)
    keys = [key for key in table.foreign_keys if key.column.table is not table]
    keys.sort(key=lambda key: (key.column.table is not IMAGES, key.parent.name))
    for key in keys:
        of_parent = about(key.column.table, image_ids)
        if of_parent is not None:
            direct = key.column.table is IMAGES
            return key.parent.in_(image_ids if direct else select(key.column).where(of_parent))
    return None


# Children before their parents.
TABLES = tuple(table for table in reversed(Base.metadata.sorted_tables) if about(table, ()) is not None)


def count(session: Session, image_ids: Collection[int]) -> dict[str, int]:
    """How many rows of each table are about these images."""
    found: Counter[str] = Counter()
    for chunk in chunks(image_ids):
        for table in TABLES:
            found[table.name] += (
                session.scalar(select(func.count()).select_from(table).where(_about(table, chunk))) or 0
            )
    return dict(found)


def remove(session: Session, image_id: int) -> tuple[dict[str, int], dict[str, int]]:
    """Delete every row about an image that has a tombstone: (how many, highest id of the `OUTLIVING`), by table."""
    removed, highest = {}, {}
    for table in TABLES:
        condition = _about(table, [image_id])
        if table.name in {model.__tablename__ for model in OUTLIVING}:
            highest[table.name] = session.scalar(select(func.max(table.c.id)).where(condition)) or 0
        removed[table.name] = session.execute(delete(table).where(condition)).rowcount  # type: ignore[attr-defined]
    return removed, highest


def _about(table: Table, image_ids: Collection[int]) -> ColumnElement[bool]:
    condition = about(table, image_ids)
    assert condition is not None
    return condition


def ls_tasks(session: Session, image_id: int) -> list[tuple[int, int]]:
    """(project id, Label Studio's task id) of an image's tasks and of its cells', deleted ones included."""
    queries = (
        select(model.project_id, model.ls_task_id).where(model.image_id == image_id) for model in (Task, CellTask)
    )
    return sorted((project_id, task_id) for query in queries for project_id, task_id in session.execute(query))
