"""What an expert asks for while reviewing: a whole field because of one of its cells."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.models import ITEM_TRANSITIONS, ItemStatus, ReviewItem, Slot, Way, now

LASTS = timedelta(days=7)  # so long no ranking takes the field away again
REASON = "an expert wants to see"
ASKED = "asked for"  # in whose hands such a field is, until an expert answers it
# What a ranking expects of any item: nothing is known of its worth, for no model has asked for it.
UNKNOWN_WORTH = {"best_cells": [], "seconds": 1.0, "value": 0.0}


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
    field = next((other for other in waiting if other.way == Way.field), None)
    if field is None:
        field = ReviewItem(ranking_id=item.ranking_id, way=Way.field, image_id=item.image_id, terms=dict(UNKNOWN_WORTH))
        session.add(field)
    field.score = 0.0
    field.terms = {**field.terms, "asked_by": expert, "asked_cell": cell_key}
    field.reason = f"{REASON} cell {cell_key} in its field"
    field.assigned_to, field.assigned_until = ASKED, moment + LASTS
    session.flush()
    lift(session)
    return field


def lift(session: Session) -> int:
    """Put the fields that experts asked for before all others again, whatever a ranking made of them; how many."""
    waiting = select(ReviewItem).where(ReviewItem.status == ItemStatus.pending, ReviewItem.way == Way.field)
    fields = session.scalars(waiting.order_by(ReviewItem.id)).all()
    top = max((item.score for item in fields if item.assigned_to != ASKED), default=0.0)
    asked = [item for item in fields if item.assigned_to == ASKED]
    for item in asked:
        item.score = top + 1.0
        if not item.reason.startswith(REASON):
            item.reason = f"{REASON} one of its cells in its field"
    session.flush()
    return len(asked)
