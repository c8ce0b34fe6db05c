"""Cells: the identity that predictions and labels share, and how a box finds its cell."""

from __future__ import annotations

import secrets
import string
from collections.abc import Sequence
from datetime import datetime
from typing import cast

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db.errors import NotFound, RecordError
from db.labels import current_labels, current_revisions
from db.models import Cell, LabelRevision, PredictedCell, Prediction, now

Box = tuple[float, float, float, float]  # xyxy, px

SAME_CELL_IOU = 0.5
KEY_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase  # as bytes are sorted
KEY_MINUTE, KEY_RANDOM = 4, 6  # letters of a key


def new_key() -> str:
    """A new key, which Label Studio accepts as a region id.

    It begins with the present minute and goes on at random. So an index by key grows in one place, as one by number
    does: with keys all random, a record of millions of cells took new ones in three times as slowly.
    """
    return key_minute(now()) + "".join(secrets.choice(KEY_ALPHABET) for _ in range(KEY_RANDOM))


def key_minute(moment: datetime) -> str:
    """How keys made in this minute begin; they grow for 28 years, then begin anew."""
    minute, letters = int(moment.timestamp()) // 60, []
    for _ in range(KEY_MINUTE):
        minute, letter = divmod(minute, len(KEY_ALPHABET))
        letters.append(KEY_ALPHABET[letter])
    return "".join(reversed(letters))


def add_cell(session: Session, image_id: int, key: str | None = None) -> Cell:
    """The cell with this key, created where the image has none; without a key, a new cell."""
    if key is not None:
        known = session.scalar(select(Cell).where(Cell.image_id == image_id, Cell.key == key))
        if known is not None:
            return known
    cell = Cell(image_id=image_id, key=key or new_key())
    session.add(cell)
    session.flush()
    return cell


def get(session: Session, cell_id: int) -> Cell:
    """The cell with this id. Raises NotFound."""
    cell = session.get(Cell, cell_id)
    if cell is None:
        raise NotFound(f"expected a cell with id {cell_id}, found none")
    return cell


def cells_by_key(session: Session, image_id: int) -> dict[str, Cell]:
    """All cells of an image by their key."""
    return {cell.key: cell for cell in session.scalars(select(Cell).where(Cell.image_id == image_id))}


def ids_by_key(session: Session, image_id: int) -> dict[str, int]:
    """Only the ids: whoever records a review needs no more, and 80 rows are read in a fifth of the time."""
    return {
        key: cell_id for key, cell_id in session.execute(select(Cell.key, Cell.id).where(Cell.image_id == image_id))
    }


def places(session: Session, image_id: int) -> dict[int, Box]:
    """Where each known cell of an image lies: cell id -> box.

    The live label's box; else the newest prediction's (a cell an expert rejected keeps its place, so that the
    next model's same mistake is recognised); else the newest box any expert ever gave it.
    """
    found: dict[int, Box] = {}
    newest_revision = (
        select(func.max(LabelRevision.id))
        .where(LabelRevision.image_id == image_id, LabelRevision.x1.is_not(None))
        .group_by(LabelRevision.cell_id)
    )
    newest_prediction = (
        select(func.max(PredictedCell.id))
        .join(Prediction, Prediction.id == PredictedCell.prediction_id)
        .where(Prediction.image_id == image_id)
        .group_by(PredictedCell.cell_id)
    )
    for model, newest in ((LabelRevision, newest_revision), (PredictedCell, newest_prediction)):
        columns = (model.cell_id, model.x1, model.y1, model.x2, model.y2)
        for cell_id, *corners in session.execute(select(*columns).where(model.id.in_(newest))):
            found[cell_id] = cast(Box, tuple(corners))
    for live in current_labels(session, [image_id]):
        if live.box is not None:
            found[live.cell_id] = live.box
    return found


def place_of(session: Session, cell_id: int) -> Box | None:
    """Where one cell lies, as `places` says it, in a time that does not grow with its image; None: nowhere."""
    said, seen = LabelRevision, PredictedCell
    drawn = select(said.x1, said.y1, said.x2, said.y2).where(said.cell_id == cell_id, said.x1.is_not(None))
    newest = select(seen.x1, seen.y1, seen.x2, seen.y2).where(seen.cell_id == cell_id).order_by(seen.id.desc())
    for query in (drawn.where(said.id.in_(current_revisions([cell_id]))), newest, drawn.order_by(said.id.desc())):
        row = session.execute(query.limit(1)).first()
        if row is not None:
            return cast(Box, tuple(row))
    return None


def iou(a: Sequence[Box], b: Sequence[Box]) -> NDArray[np.float64]:
    """Intersection over union of every box of `a` (N) with every box of `b` (M): (N, M)."""
    first, second = np.asarray(a, dtype=float).reshape(-1, 1, 4), np.asarray(b, dtype=float).reshape(1, -1, 4)
    corner = np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(first[..., :2], second[..., :2])
    overlap = corner.clip(min=0).prod(axis=-1)
    areas = [(boxes[..., 2:] - boxes[..., :2]).prod(axis=-1) for boxes in (first, second)]
    return overlap / (areas[0] + areas[1] - overlap)


def match(a: Sequence[Box], b: Sequence[Box], threshold: float = SAME_CELL_IOU) -> dict[int, int]:
    """One-to-one pairs {index in a: index in b} with IoU >= threshold, the best pair first (greedy)."""
    if not len(a) or not len(b):
        return {}
    overlaps = iou(a, b)
    rows, columns = np.nonzero(overlaps >= threshold)
    order = np.argsort(-overlaps[rows, columns], kind="stable")
    pairs: dict[int, int] = {}
    taken: set[int] = set()
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if row not in pairs and column not in taken:
            pairs[row] = column
            taken.add(column)
    return pairs


def resolve_cells(
    session: Session, image_id: int, boxes: Sequence[Box], keys: Sequence[str | None] | None = None
) -> list[Cell]:
    """The cell of each box, all different, created where the image knows none.

    A key names its cell directly; every other box takes the known cell it overlaps best (one to one, IoU >= 0.5).
    Lock the image first (`db.images.lock`) when several processes may do this.
    """
    named = list(keys) if keys is not None else [None] * len(boxes)
    given = [key for key in named if key is not None]
    if len(named) != len(boxes) or len(set(given)) != len(given):
        raise RecordError(f"expected one key or None per box and no key twice, got {len(named)} for {len(boxes)}")
    known = cells_by_key(session, image_id)
    claimed = {known[key].id for key in given if key in known}
    free = {cell_id: box for cell_id, box in places(session, image_id).items() if cell_id not in claimed}
    unnamed = [index for index, key in enumerate(named) if key is None]
    free_ids = list(free)
    pairs = match([boxes[index] for index in unnamed], list(free.values()))
    by_id = {cell.id: cell for cell in known.values()}
    matched = {unnamed[row]: by_id[free_ids[column]] for row, column in pairs.items()}
    result = []
    for index, key in enumerate(named):
        cell = known.get(key) if key is not None else matched.get(index)
        if cell is None:
            cell = Cell(image_id=image_id, key=key or new_key())
            session.add(cell)
        result.append(cell)
    session.flush()
    return result
