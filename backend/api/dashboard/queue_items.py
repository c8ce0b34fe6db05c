"""Items of the queue as pages show them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from db import images, queue
from db.models import ReviewItem, Slot, Way, now

SLOTS = {
    Slot.acquisition: "chosen by the ranking",
    Slot.random: "drawn at random",
    Slot.second_reading: "second reading",
}


@dataclass(frozen=True)
class Item:
    """One item that waits: where it lies, why it is asked, and its picture. cell: None for a whole field."""

    id: int
    cell: int | None
    place: str
    reason: str
    slot: str
    score: float
    since: datetime
    in_hand: bool
    link: str
    picture: str
    alt: str


def head(session: Session, most: int, way: Way | None = None) -> list[Item]:
    """The items that come next, the most valuable first."""
    rows = queue.pending(session, way, most)
    names = {image_id: image.name for image_id, image in images.by_ids(session, {row.image_id for row in rows}).items()}
    moment = now()
    return [_item(row, names[row.image_id], moment) for row in rows]


def _item(row: ReviewItem, name: str, moment: datetime) -> Item:
    whole = row.cell_id is None
    base = f"/dashboard/images/{row.image_id}" if whole else f"/dashboard/cells/{row.cell_id}"
    return Item(
        id=row.id,
        cell=row.cell_id,
        place=name,
        reason=row.reason or "; ".join(row.terms.get("reasons", [])[:2]),  # a field has those of its cells
        slot=SLOTS[row.slot],
        score=row.score,
        since=row.created_at,
        in_hand=queue.in_hands(row, moment),
        link=base,
        picture=f"{base}/{'thumbnail' if whole else 'crop'}.jpg",
        alt=f"Field {name}" if whole else f"Cell {row.cell_id} of {name}",
    )
