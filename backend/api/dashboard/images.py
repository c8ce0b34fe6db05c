"""`/dashboard/images` and one image: the field, what experts say of it, and what a model pair saw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from sqlalchemy.orm import Session

from backend.api.dashboard.charts import Point
from backend.api.dashboard.life import life_of_image
from backend.api.dashboard.smear_counts import LABELS
from backend.api.dashboard.view import Id, Later, render
from backend.api.deps import ServerDep
from backend.api.live import present
from backend.label_studio.label_config import COLOURS
from db import images, labels, overview, predictions, suspicions
from db.models import Image, Prediction, Split

router = APIRouter()

PAGE = 24  # images
RED = "red blood cell"


@dataclass(frozen=True)
class Outline:
    """One box to draw, as SVG has it: left, top, width, height in px. label None: an expert says there is no cell."""

    cell: int
    label: str | None
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Row:
    """One cell in words: what an expert said, and what the chosen pair saw there."""

    cell: int
    said: bool  # anything at all
    label: str | None
    expert: str
    seen: str | None
    score: float | None

    @property
    def differs(self) -> bool:
        """Whether expert and model do not say the same."""
        return self.said and self.label != self.seen


@router.get("/images")
def image_list(
    request: Request, server: ServerDep, after: Later = 0, split: Split | Literal[""] = "", name: str = ""
) -> HTMLResponse:
    """Images in the order they came, a page at a time."""
    with server.database.session(read_only=True) as session:
        found = images.some(session, after, PAGE + 1, split=Split(split) if split else None, beginning=name)
        return render(
            request,
            "images.html.j2",
            live=present(session),
            images=found[:PAGE],
            more=found[PAGE - 1].id if len(found) > PAGE else None,
            after=after,
            split=split,
            splits=[each.value for each in Split],
            name=name,
        )


@router.get("/images/{image_id}")
def image(image_id: Id, request: Request, server: ServerDep, pair: Later | None = None) -> HTMLResponse:
    """One field with current labels and the prediction of a pair, the newest where none is chosen."""
    with server.database.session(read_only=True) as session:
        row = images.get(session, image_id)
        known = predictions.of_image(session, image_id)
        chosen = next(((seen, by) for seen, by in known if pair in (None, by.id)), None)
        truth, seen, rows = _cells(session, row, chosen[0] if chosen else None)
        return render(
            request,
            "image.html.j2",
            live=present(session),
            image=row,
            pairs=[by for _, by in known],
            chosen=chosen,
            truth=truth,
            seen=seen,
            rows=rows,
            counts=_counts(truth, seen),
            parasitaemia=_parasitaemia(session, image_id),
            life=life_of_image(overview.image_events(session, image_id)),
        )


def _parasitaemia(session: Session, image_id: int) -> list[tuple[str, Point]]:
    """(source, percent of all red cells with its interval), by experts' labels and by each pair."""
    rows = overview.parasitaemia(session, [image_id])
    return [
        (row["source"], Point(row["parasitaemia"], row["low"], row["high"], row["cells"]))
        for row in sorted(rows, key=lambda row: row["source"] != LABELS)
    ]


def _cells(
    session: Session, image: Image, prediction: Prediction | None
) -> tuple[list[Outline], list[Outline], list[Row]]:
    """What is labelled, what was predicted, and both per cell, the ones worth a look first."""
    said = {live.cell_id: live for live in labels.current_labels(session, [image.id])}
    found = {} if prediction is None else {row.cell_id: row for row in suspicions.seen_cells(session, prediction.id)}
    truth = [
        Outline(cell, live.label, live.box[0], live.box[1], live.box[2] - live.box[0], live.box[3] - live.box[1])
        for cell, live in said.items()
        if live.box is not None
    ]
    seen = [Outline(cell, row.label, row.x1, row.y1, row.x2 - row.x1, row.y2 - row.y1) for cell, row in found.items()]
    rows = [
        Row(
            cell,
            cell in said,
            said[cell].label if cell in said else None,
            said[cell].expert if cell in said else "",
            found[cell].label if cell in found else None,
            found[cell].score if cell in found else None,
        )
        for cell in sorted(said.keys() | found.keys())
    ]
    rows.sort(key=lambda row: (not row.differs, row.label in (None, RED) and row.seen in (None, RED), row.cell))
    return truth, seen, rows


def _counts(truth: list[Outline], seen: list[Outline]) -> list[tuple[str, int, int]]:
    """(label, how many are labelled so, how many predicted so), of labels that occur."""
    rows = [(name, _count(truth, name), _count(seen, name)) for name in COLOURS]
    return [row for row in rows if row[1] or row[2]]


def _count(outlines: list[Outline], label: str) -> int:
    return sum(each.label == label for each in outlines)
