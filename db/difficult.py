"""Difficult cells: what one expert could not decide waits for another, and is nobody's training until then.

A cell that anybody ever called difficult is in one of three states, which follow from what is said at present:
open      it is difficult, as one reader says: a second one should look
confirmed it is difficult, as two readers say, each for themselves
resolved  it is something else now, said by another reader or by the same one who changed their mind
Open and confirmed cells are ignored by training (`al_loop/dataset.py`); a resolved one trains as what it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.models import Image, LabelRevision, Split
from db.readings import Reading, live_readings

DIFFICULT = "difficult"  # backend.instances.DIFFICULT; a test compares them


class Doubt(StrEnum):
    """Where a difficult cell stands."""

    open = "open"
    confirmed = "confirmed"
    resolved = "resolved"


@dataclass(frozen=True)
class DifficultCell:
    """A cell that somebody ever called difficult.

    label: what it is now, None: an expert says there is no cell. readers: experts with a live answer about it, oldest
    first, imports excluded: for them a second reading is not. since: when it came into this state.
    """

    cell_id: int
    image_id: int
    image: str  # the name it came with
    state: Doubt
    label: str | None
    readers: tuple[str, ...]
    since: datetime


def difficult_cells(
    session: Session,
    state: Doubt | None = None,
    split: Split | None = Split.train,
    among: Sequence[int] | None = None,
) -> list[DifficultCell]:
    """Cells ever called difficult, in this state when given, those that wait longest first.

    Only of the pool's images unless told otherwise: nobody changes the ruler by a second reading. A cell about which
    nobody says anything any more is left out. among: only these.
    """
    query = (
        select(LabelRevision.cell_id, LabelRevision.image_id, Image.name)
        .join(Image, Image.id == LabelRevision.image_id)
        .where(LabelRevision.label == DIFFICULT)
        .distinct()
    )
    if split is not None:
        query = query.where(Image.split == split)
    if among is not None:
        query = query.where(LabelRevision.cell_id.in_(among))
    places = {cell_id: (image_id, name) for cell_id, image_id, name in session.execute(query)}
    found = []
    for cell_id, readings in live_readings(session, places).items():
        now, since = standing(readings)
        if state is None or now is state:
            image_id, name = places[cell_id]
            readers = tuple(dict.fromkeys(reading.expert for reading in readings if not reading.imported))
            found.append(DifficultCell(cell_id, image_id, name, now, readings[-1].label, readers, since))
    return sorted(found, key=lambda cell: (list(Doubt).index(cell.state), cell.since, cell.cell_id))


def standing(readings: Sequence[Reading]) -> tuple[Doubt, datetime]:
    """The state that follows from a cell's live readings, oldest first and at least one, and since when.

    An expert who answered twice, in a field and cell by cell, counts once, with the newest answer. The data set that
    a label came with counts as one more.
    """
    if readings[-1].label != DIFFICULT:
        return Doubt.resolved, readings[-1].decided_at
    newest = {reading.expert: reading for reading in readings}
    voices = sorted(reading.decided_at for reading in newest.values() if reading.label == DIFFICULT)
    return (Doubt.open, voices[0]) if len(voices) == 1 else (Doubt.confirmed, voices[1])
