"""Readings: who has said what about a cell. A second reading is for somebody who has not read it yet."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from db.chunks import chunks
from db.labels import last_revisions
from db.models import Action, LabelRevision, Review, Way
from db.reviews import IMPORT_EXPERT


@dataclass(frozen=True)
class Reading:
    """One answer about one cell. label None: no cell there, or (action `withdrawn`) nothing said any more."""

    cell_id: int
    expert: str  # IMPORT_EXPERT for labels that came with a data set
    label: str | None
    action: Action
    way: Way
    decided_at: datetime
    revision_id: int

    @property
    def imported(self) -> bool:
        """Whether it came with a data set: nobody of ours has read the cell."""
        return self.expert == IMPORT_EXPERT


def _readings() -> Select[int, str, str | None, Action, Way, datetime, int]:
    return select(
        LabelRevision.cell_id,
        Review.expert,
        LabelRevision.label,
        LabelRevision.action,
        Review.way,
        LabelRevision.decided_at,
        LabelRevision.id,
    ).join(Review, Review.id == LabelRevision.review_id)


def live_readings(session: Session, cell_ids: Collection[int]) -> dict[int, list[Reading]]:
    """What every annotation says at present about each of these cells, by the expert's clock, oldest first.

    The last reading of a cell is its current label (`db/labels.py`). Cells about which nobody says anything are absent.
    """
    found: dict[int, list[Reading]] = {}
    for chunk in chunks(cell_ids):
        last = last_revisions().where(LabelRevision.cell_id.in_(chunk))
        live = _readings().where(LabelRevision.id.in_(last), LabelRevision.action != Action.withdrawn)
        for row in session.execute(live.order_by(LabelRevision.cell_id, LabelRevision.decided_at, LabelRevision.id)):
            found.setdefault(row.cell_id, []).append(Reading(*row))
    return found


def readers_of(session: Session, cell_ids: Collection[int]) -> dict[int, list[str]]:
    """Experts whose live answers about each of these cells exist, those who answered first, first; imports are nobody.

    Cells that no expert has read are absent.
    """
    found = {
        cell_id: list(dict.fromkeys(reading.expert for reading in readings if not reading.imported))
        for cell_id, readings in live_readings(session, cell_ids).items()
    }
    return {cell_id: experts for cell_id, experts in found.items() if experts}


def history(session: Session, cell_id: int) -> list[Reading]:
    """Everything ever said about one cell, and by whom, in the order of recording."""
    query = _readings().where(LabelRevision.cell_id == cell_id).order_by(LabelRevision.id)
    return [Reading(*row) for row in session.execute(query)]
