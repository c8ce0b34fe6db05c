"""What an expert asks for while reviewing: a whole field because of one of its cells."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db.models import ITEM_TRANSITIONS, ItemStatus, ReviewItem, Slot, Way, now

LASTS = timedelta(days=7)  # so long no ranking takes the field away again


def ask_for_field(session: Session, item: ReviewItem, cell_key: str, expert: str) -> ReviewItem:
    """Let the field of this cell's item come first, because an expert wants to see the cell in it.

    The field's other cells that wait for a first reading are left to it, unless somebody has them in hand.
    """
    moment = now()
    waiting = session.scalars(
        select(ReviewItem)
        .where(ReviewItem.image_id == item.image_id, ReviewItem.status == ItemStatus.pending)
        .with_for_update(key_share=True)
    ).all()
    for other in waiting:
        held = other.assigned_until is not None and other.assigned_until > moment
        if other.way == Way.cell and other.slot != Slot.second_reading and not held:
            assert ItemStatus.superseded in ITEM_TRANSITIONS[other.status]
            other.status, other.closed_at = ItemStatus.superseded, moment
            other.assigned_to = other.assigned_until = None
    top = session.scalar(
        select(func.max(ReviewItem.score)).where(
            ReviewItem.status == ItemStatus.pending, ReviewItem.way == Way.field, ReviewItem.image_id != item.image_id
        )
    )
    field = next((other for other in waiting if other.way == Way.field), None)
    if field is None:
        field = ReviewItem(ranking_id=item.ranking_id, way=Way.field, image_id=item.image_id, terms={}, score=0.0)
        session.add(field)
    field.score = max(field.score, (top or 0.0) + 1.0)
    field.terms = {**field.terms, "asked_by": expert, "asked_cell": cell_key}
    field.reason = f"an expert wants to see cell {cell_key} in its field"
    field.assigned_to, field.assigned_until = "label studio", moment + LASTS
    session.flush()
    return field
