"""The questions that the record answers, and what each may be narrowed by."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.orm import Session

from db.errors import NotFound, UnusableQuestion
from db.history import Filter, Question, ViewQuestion
from db.models import Cell, Image, Slot, Split, Way
from db.views_cells import LABELS, LABELS_AS_OF
from db.views_counts import IMAGE_EVENTS
from db.views_life import CELL_EVENTS
from db.views_models import DECISIONS, METRICS, SERVING, TRAINING_IMAGES, VERSIONS
from db.views_operations import CANARIES, RUNS
from db.views_people import CORRECTIONS, EXPERTS, QUEUE


def find_image(session: Session, given: str) -> int:
    """The image with this id, sha256 or name. Raises NotFound, and UnusableQuestion when several bear the name."""
    by = Image.id == int(given) if given.isdecimal() else or_(Image.sha256 == given, Image.name == given)
    found = session.scalars(select(Image.id).where(by).limit(2)).all()
    if not found:
        raise NotFound(f"expected an image's id, sha256 or name, got {given!r}: there is none such")
    if len(found) > 1:
        raise UnusableQuestion(f"expected one image, got {given!r}, which several are called: give an id or sha256")
    return found[0]


def find_cell(session: Session, given: str) -> int:
    """The cell with this id, or this key (Label Studio's region id). Raises NotFound, UnusableQuestion."""
    by = Cell.id == int(given) if given.isdecimal() else Cell.key == given
    found = session.scalars(select(Cell.id).where(by).limit(2)).all()
    if not found:
        raise NotFound(f"expected a cell's id or Label Studio's region id, got {given!r}: there is none such")
    if len(found) > 1:
        raise UnusableQuestion(f"expected one cell, got {given!r}, which is a region of several images: give its id")
    return found[0]


class Event(StrEnum):
    """What can happen to a cell."""

    predicted = "predicted"
    not_seen = "not seen"
    ranked = "ranked"
    queued = "queued"
    suspected = "suspected"
    answered = "answered"
    trained = "trained"


def since(column: str, about: str) -> Filter:
    """Rows of this moment or later."""
    return Filter("since", about, datetime, condition=lambda columns, value: columns[column] >= value)


def until(column: str, about: str) -> Filter:
    """Rows before this moment."""
    return Filter("until", about, datetime, condition=lambda columns, value: columns[column] < value)


def _of_version(columns: Any, value: int) -> ColumnElement[bool]:
    return or_(columns.all_cells_version == value, columns.infected_version == value)


def _valid(columns: Any, value: datetime) -> ColumnElement[bool]:
    return and_(columns.valid_from <= value, or_(columns.valid_to > value, columns.valid_to.is_(None)))


IMAGE = Filter("image", "id, sha256 or name", column="image_id", find=find_image)
SLIDE = Filter("slide", "slide, or contiguous block")
PATIENT = Filter("patient", "patient")
EXPERT = Filter("expert", "e-mail address")
WAY = Filter("way", "whole fields, or cells one by one", Way)
PAIR = Filter("pair", "model pair, as Label Studio's model_version")
VERSION = Filter("version", "model version, in either role", int, condition=_of_version)
DAY_SINCE = Filter("since", "from this day", datetime, condition=lambda columns, value: columns.day >= _day(value))
DAY_UNTIL = Filter("until", "before this day", datetime, condition=lambda columns, value: columns.day < _day(value))


def _day(value: datetime) -> str:
    return value.astimezone(UTC).date().isoformat()


QUESTIONS: tuple[Question, ...] = (
    ViewQuestion(
        "cell",
        "The life of a cell: predicted, queued and why, every answer and second reading, trainings, later models.",
        view=CELL_EVENTS,
        order=("at", "event", "ref"),
        filters=(
            Filter("cell", "id, or Label Studio's region id", column="cell_id", find=find_cell, required=True),
            Filter("event", "one kind of event", Event),
        ),
        example="cell 4711",
    ),
    ViewQuestion(
        "image",
        "The life of an image: imported, predicted, queued, reviewed by whom and how long, trained on.",
        view=IMAGE_EVENTS,
        order=("at", "event", "ref"),
        filters=(Filter("image", IMAGE.about, column="image_id", find=find_image, required=True),),
        example="image smear-12.png",
    ),
    ViewQuestion(
        "labels",
        "The label of every cell, now or as of any moment.",
        view=LABELS,
        order=("cell_id",),
        filters=(
            IMAGE,
            Filter("cell", "id, or Label Studio's region id", column="cell_id", find=find_cell),
            SLIDE,
            PATIENT,
            Filter("split", "part of the data", Split),
            Filter("label", "class, or difficult"),
            EXPERT,
            Filter("imported", "labels that came with a data set, or those of experts", bool),
            since("decided_at", "decided at this moment or later"),
            until("decided_at", "decided before this moment"),
            Filter("as_of", "as it was at this moment, by the experts' clocks", datetime, condition=_valid),
        ),
        example="labels --slide S12 --as-of 2026-11-20T12:00:00+00:00 --csv",
        as_of=LABELS_AS_OF,
    ),
    ViewQuestion(
        "metrics",
        "Every metric of every version over time: per class, split and protocol, with 95 % intervals.",
        view=METRICS,
        order=("metric_id",),
        filters=(
            Filter("name", "of the metric, as ap50"),
            Filter("class_name", "class it is of; empty for pooled numbers"),
            VERSION,
            PAIR,
            Filter("split", "part of the data it was measured on"),
            Filter("protocol", "how it was scored"),
            since("evaluated_at", "evaluated at this moment or later"),
            until("evaluated_at", "evaluated before this moment"),
        ),
        example="metrics --name ap50 --class-name ring",
    ),
    ViewQuestion(
        "versions",
        "Every model version: trained on what, and the last decision about it with its reasons.",
        view=VERSIONS,
        order=("version_id",),
        filters=(Filter("role", "all_cells or infected"), Filter("status", "candidate, active, retired or rejected")),
        example="versions --role infected",
    ),
    ViewQuestion(
        "decisions",
        "Why each version was promoted or refused.",
        view=DECISIONS,
        order=("decision_id",),
        filters=(Filter("version", "model version", int, column="version_id"), Filter("role", "all_cells or infected")),
        example="decisions --version 7",
    ),
    ViewQuestion(
        "serving",
        "Which version of each role served from when to when.",
        view=SERVING,
        order=("decision_id",),
        filters=(
            Filter("role", "all_cells or infected"),
            Filter("version", "model version", int, column="version_id"),
            Filter(
                "at",
                "those that served at this moment",
                datetime,
                condition=lambda c, value: and_(
                    c.served_from <= value, or_(c.served_to > value, c.served_to.is_(None))
                ),
            ),
        ),
        example="serving --at 2026-11-20",
    ),
    ViewQuestion(
        "runs",
        "Every training run: what began it, where and how long it ran, and how it ended.",
        view=RUNS,
        order=("run_id",),
        filters=(
            Filter("role", "all_cells or infected"),
            Filter("status", "queued, running, succeeded, failed or cancelled"),
            Filter("trigger", "what began it"),
            since("asked_at", "asked for at this moment or later"),
        ),
        example="runs --status failed",
    ),
    ViewQuestion(
        "canaries",
        "What experts correct of a new pair, beside the pair before it, in fields drawn at random.",
        view=CANARIES,
        order=("check_id",),
        filters=(PAIR, Filter("verdict", "passed, watching, refused or rolled_back")),
        example="canaries --verdict rolled_back",
    ),
    ViewQuestion(
        "experts",
        "Who labelled how much and how fast, per day.",
        view=EXPERTS,
        order=("-day", "expert", "way"),
        filters=(EXPERT, WAY, DAY_SINCE, DAY_UNTIL),
        example="experts --since 2026-11-01 --until 2026-12-01",
    ),
    ViewQuestion(
        "corrections",
        "What experts did to the pre-annotation of each model pair: accepted, moved, relabelled, deleted, added.",
        view=CORRECTIONS,
        order=("pair_id", "way"),
        filters=(PAIR, VERSION, WAY),
        example="corrections --version 7",
    ),
    ViewQuestion(
        "training-set",
        "The images a model version was trained on; its labels are in the manifest.",
        view=TRAINING_IMAGES,
        order=("version_id", "image_id"),
        filters=(Filter("version", "model version", int, column="version_id", required=True), PATIENT, SLIDE),
        example="training-set 7 --json",
    ),
    ViewQuestion(
        "queue",
        "What waits for an expert, why, and since when; the most valuable first.",
        view=QUEUE,
        order=("-score", "item_id"),
        filters=(
            WAY,
            Filter("slot", "why it is there", Slot),
            IMAGE,
            SLIDE,
            PATIENT,
            Filter("predicted", "label in question"),
            until("waiting_since", "waiting since before this moment"),
        ),
        example="queue --way cell --slot second_reading",
    ),
)
