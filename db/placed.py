"""Annotations that we placed in Label Studio ourselves: to close a task there, or to keep it from one expert.

They are no answers, so a sync leaves them out. An intent is noted before Label Studio is asked, and completed with
the annotation's id afterwards: a crash in between leaves an intent that the next push completes.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Protocol

from sqlalchemy.orm import Session

from db.models import CellTask, Task


class Why(StrEnum):
    """What a placed annotation is for."""

    reader = "reader"  # cancelled, by somebody who has read the cell: Label Studio never gives them the task
    elsewhere = "elsewhere"  # the answer was given in the other way of reviewing: the task is done here, too
    cells = "cells"  # the field's cells wait one by one: nobody is to be given the whole field meanwhile


def intend(session: Session, task: Task | CellTask, why: Why, user: int, *, cancelled: bool = False) -> None:
    """Note that an annotation by this user (Label Studio's id) is about to be placed."""
    task.placed = [*task.placed, {"why": why.value, "user": user, "cancelled": cancelled, "annotation": None}]
    session.add(task)
    session.flush()


def complete(session: Session, task: Task | CellTask, why: Why, user: int, annotation_id: int) -> None:
    """Note the id of an annotation that was intended."""
    entries = [dict(entry) for entry in task.placed]
    for entry in entries:
        if entry["why"] == why.value and entry["user"] == user and entry["annotation"] is None:
            entry["annotation"] = annotation_id
            break
    task.placed = entries
    session.add(task)
    session.flush()


def forget(session: Session, task: Task | CellTask, why: Why) -> None:
    """The annotations placed for this reason are gone in Label Studio."""
    task.placed = [entry for entry in task.placed if entry["why"] != why.value]
    session.add(task)
    session.flush()


def entries(task: Task | CellTask, why: Why) -> list[dict[str, Any]]:
    """What is placed, or intended, on this task for this reason."""
    return [entry for entry in task.placed if entry["why"] == why.value]


class Facts(Protocol):
    """What is known of an annotation in Label Studio."""

    @property
    def id(self) -> int: ...
    @property
    def completed_by(self) -> int | None: ...
    @property
    def was_cancelled(self) -> bool: ...
    @property
    def lead_time(self) -> float | None: ...


def is_entry(entry: Mapping[str, Any], annotation: Facts) -> bool:
    """Whether this is the annotation that was placed. One with a lead time is an expert's, who changed it since:
    editors always send one, and we never do."""
    if annotation.lead_time is not None:
        return False
    if entry["annotation"] is not None:
        return bool(entry["annotation"] == annotation.id)
    return (entry["user"], entry["cancelled"]) == (annotation.completed_by, annotation.was_cancelled)


def is_placed(task: Task | CellTask, annotation: Facts) -> bool:
    """Whether an annotation on this task is one of ours."""
    return any(is_entry(entry, annotation) for entry in task.placed)
