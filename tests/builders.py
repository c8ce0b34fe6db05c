"""Rows for tests, with everything a test does not care about filled in."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import event
from sqlalchemy.orm import ORMExecuteState, Session

from db import cells, images, labels, predictions, reviews, versions
from db.models import Action, Cell, Image, ModelPair, ModelVersion, Prediction, Project, Review, Way

START = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
BOX = (10.0, 10.0, 50.0, 50.0)
CLASS_COUNT = 6
NOBODY = 2_000_000_000  # an id that no row has
_numbers = itertools.count(1)


def at(minutes: float) -> datetime:
    """A moment, in minutes after a fixed start."""
    return START + timedelta(minutes=minutes)


@contextmanager
def dated(session: Session, moment: datetime) -> Iterator[None]:
    """What is recorded inside is recorded at this moment, not at the test's."""

    def date(_session: Session, *_: Any) -> None:
        for row in session.new:
            for column in ("created_at", "recorded_at", "decided_at"):
                if hasattr(row, column) and getattr(row, column) is None:
                    setattr(row, column, moment)

    def date_in_bulk(state: ORMExecuteState) -> None:
        if state.is_insert and isinstance(state.parameters, list):
            for row in state.parameters:
                row.setdefault("recorded_at", moment)

    event.listen(session, "before_flush", date)
    event.listen(session, "do_orm_execute", date_in_bulk)
    yield
    session.flush()
    event.remove(session, "before_flush", date)
    event.remove(session, "do_orm_execute", date_in_bulk)


def sha256(word: object) -> str:
    """The sha256 of a word: a stand-in for a file's."""
    return hashlib.sha256(str(word).encode()).hexdigest()


def add_image(session: Session, name: str | None = None, **changes: Any) -> Image:
    """A train image of 640 x 480 px; every call another one, unless named alike."""
    name = name or f"smear-{next(_numbers)}.png"
    digest = sha256(name)
    row = {
        "sha256": digest,
        "file": f"images/{digest[:2]}/{digest}.png",
        "name": name,
        "width": 640,
        "height": 480,
        "group": name,
        "split": "train",
        "dataset": "rendered",
    }
    return images.add_image(session, **{**row, **changes})[0]


def add_version(session: Session, role: str = "infected", **changes: Any) -> ModelVersion:
    """A candidate of this role."""
    row: dict[str, Any] = {
        "role": role,
        "weights_sha256": sha256(f"weights {next(_numbers)}"),
        "config": {"role": role},
        "manifest": {"images": []},
        "manifest_sha256": sha256("manifest"),
        "environment": {"device": "cpu"},
    }
    return versions.add_version(session, **{**row, **changes})


def add_active_pair(session: Session) -> ModelPair:
    """Two new versions that serve, and their pair."""
    for role in ("all_cells", "infected"):
        versions.activate(session, add_version(session, role).id, kind="first", reasons=["for a test"])
    pair = versions.active_pair(session)
    assert pair is not None
    return pair


def cell_row(box: Sequence[float] = BOX, label: str = "red blood cell", **changes: Any) -> predictions.CellRow:
    """A fused cell that both models saw."""
    row: dict[str, Any] = {
        "key": None,
        "box": tuple(float(value) for value in box),
        "label": label,
        "score": 0.9,
        "probabilities": [0.9] + [0.02] * (CLASS_COUNT - 1),
        "score_all_cells": 0.9,
        "score_infected": 0.1,
        "source": "both",
        "pair_iou": 0.8,
        "disputed": False,
        "mask": None,
    }
    return predictions.CellRow(**{**row, **changes})


def add_prediction(
    session: Session, image: Image, pair: ModelPair, boxes: Sequence[Sequence[float]] = (BOX,), **changes: Any
) -> Prediction:
    """What this pair saw: a red blood cell (or `label=...`) in every box."""
    rows = [cell_row(box, **changes) for box in boxes]
    return predictions.add_prediction(session, image.id, pair.id, rows, seconds=0.5)


def add_cell(session: Session, image: Image, key: str | None = None) -> Cell:
    """A cell of this image."""
    return cells.add_cell(session, image.id, key)


def add_review(
    session: Session,
    image: Image,
    thread: str = "ls:1:1",
    minute: float = 0,
    status: str = "submitted",
    expert: str = "ada@example.org",
    **changes: Any,
) -> Review:
    """The next state of an annotation of project 1, `minute` minutes after the start."""
    row: dict[str, Any] = {
        "thread": thread,
        "image_id": image.id,
        "status": status,
        "expert": expert,
        "revised_at": at(minute),
        "content": [],
        "ls_project_id": 1,
    }
    return reviews.add_review(session, **{**row, **changes})


def say(
    session: Session,
    cell: Cell,
    label: str | None,
    thread: str = "ls:1:1",
    minute: float = 0,
    action: Action | str | None = None,
    box: tuple[float, float, float, float] | None = BOX,
    expert: str = "ada@example.org",
    way: Way = Way.field,
) -> int:
    """One expert's answer about one cell, as a review of its own; the revision's id. Label None: deleted."""
    image = images.get(session, cell.image_id)
    chosen = Action(action or ("deleted" if label is None else "relabelled"))
    status = "withdrawn" if chosen is Action.withdrawn else "submitted"
    review = add_review(session, image, thread, minute, status, expert, way=way)
    row = labels.revision(review, cell.id, chosen, label, None if label is None else box, shape="rectangle")
    labels.add_revisions(session, [row])
    return labels.newest_revision_id(session)


def add_projects(session: Session) -> None:
    """One Label Studio project for fields and one for cells."""
    for number, way in enumerate(Way, start=1):
        session.add(
            Project(url="http://studio", ls_project_id=number, way=way, title=way.value, label_config="<View/>")
        )
    session.flush()
