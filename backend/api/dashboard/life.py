"""The life of a cell, or of an image, in sentences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any

from backend.api.dashboard.queue_items import SLOTS
from backend.api.dashboard.view import number
from backend.instances import CLASSES
from db.models import Slot

Row = Mapping[str, Any]

NAMED = 3  # of a prediction's probabilities
SEEN_BY = {"both": "both models saw it", "all_cells": "only all_cells saw it", "infected": "only infected saw it"}
STATUS = {"submitted": "submitted", "skipped": "skipped", "withdrawn": "took back"}


@dataclass(frozen=True)
class Event:
    """What happened when. expert: whether a person did it."""

    at: datetime
    what: str
    detail: str = ""
    expert: bool = False


def life_of_cell(rows: Iterable[Row]) -> list[Event]:
    """rows: of `v_cell_events`, in order. Trainings that follow each other on the same label become one event."""
    found = []
    for (event, label, role), same in groupby(rows, _alike):
        some = list(same)
        if event == "trained":
            found.append(Event(some[0]["at"], f"{_versions(some)} of {role} learned from it, as {_name(label)}"))
        else:
            found += [_TOLD[event](row) for row in some]
    return found


def life_of_image(rows: Iterable[Row]) -> list[Event]:
    """rows: of `v_image_events`, in order. What one expert says of single cells in a row becomes one event."""
    found = []
    for (event, who, way, role), same in groupby(rows, _alike_in_image):
        some = list(same)
        if event == "trained":
            found.append(Event(some[0]["at"], f"{_versions(some)} of {role} learned from it"))
        elif event == "reviewed" and way == "cell":
            found.append(Event(some[0]["at"], f"{who} answered {len(some)} of its cells one by one", expert=True))
        else:
            found += [_TOLD_OF_IMAGE[event](row) for row in some]
    return found


def _alike(row: Row) -> tuple[Any, ...]:
    return (row["event"], row["label"], row["source"]) if row["event"] == "trained" else (row["event"], None, None)


def _alike_in_image(row: Row) -> tuple[Any, ...]:
    return row["event"], row["expert"], row["way"], row["reason"] if row["event"] == "trained" else ""


def _versions(rows: list[Row]) -> str:
    first, last = rows[0]["version_id"], rows[-1]["version_id"]
    return f"Version {first}" if len(rows) == 1 else f"{len(rows)} versions, {first} to {last},"


def _name(label: str | None) -> str:
    return label or "no cell"


def _predicted(row: Row) -> Event:
    likely = sorted(zip(row["probabilities"], CLASSES, strict=False), reverse=True)[:NAMED]
    said = ", ".join(f"{name} {number(share)}" for share, name in likely)
    detail = f"{said}; {SEEN_BY.get(row['source'], row['source'])}"
    return Event(row["at"], f"{row['pair']} saw a {row['label']} ({number(row['score'])})", detail)


def _queued(row: Row) -> Event:
    place = "by itself" if row["way"] == "cell" else "with its field"
    holder = f"; in the hands of {row['expert']}" if row["expert"] else ""
    return Event(row["at"], f"Put into the queue {place}, {SLOTS[Slot(row['slot'])]}", f"{row['reason']}{holder}")


def _answered(row: Row) -> Event:
    time = "" if row["seconds"] is None else f", {row['seconds']:.0f} s for the {row['way']}"
    reading = "first reading" if row["reading"] == 1 else f"reading {row['reading']}"
    return Event(row["at"], f"{row['expert']}: {_name(row['label'])}", f"{row['action']}, {reading}{time}", expert=True)


_TOLD = {
    "predicted": _predicted,
    "not seen": lambda row: Event(row["at"], f"{row['pair']} saw no cell here"),
    "ranked": lambda row: Event(row["at"], f"Ranked with {number(row['score'])}", row["reason"]),
    "queued": _queued,
    "suspected": lambda row: Event(row["at"], f"{row['pair']} doubts its label", row["reason"]),
    "answered": _answered,
}
_TOLD_OF_IMAGE = {
    "imported": lambda row: Event(row["at"], f"Imported ({row['reason']})"),
    "predicted": lambda row: Event(row["at"], f"{row['pair']} saw {number(row['cells'])} cells"),
    "queued": lambda row: Event(row["at"], f"Put into the queue, {SLOTS[Slot(row['slot'])]}", row["reason"] or ""),
    "reviewed": lambda row: Event(
        row["at"],
        f"{row['expert']} {STATUS[row['status']]} the field",
        "" if row["seconds"] is None else f"in {row['seconds']:.0f} s",
        expert=True,
    ),
}
