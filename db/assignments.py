"""Who has which item of the queue in hand: leases that end by themselves when an expert walks away."""

from __future__ import annotations

import json
from datetime import timedelta

from sqlalchemy import Text, cast, or_, select
from sqlalchemy.orm import Session

from db.models import ItemStatus, ReviewItem, Way, now

LEASE = timedelta(minutes=30)


def take(session: Session, expert: str, way: Way | None = None, lease: timedelta = LEASE) -> ReviewItem | None:
    """The most valuable item nobody has in hand, now in this expert's; the one they have already, if any.

    Never an item this expert has read before. Any number of experts may ask at once: each gets another item, without
    waiting for the others (PostgreSQL skips rows that are being taken; SQLite's writers take turns). None: nothing
    is left for them.
    """
    moment = now()
    open_ = select(ReviewItem).where(ReviewItem.status == ItemStatus.pending)
    if way is not None:
        open_ = open_.where(ReviewItem.way == way)
    own = open_.where(ReviewItem.assigned_to == expert, ReviewItem.assigned_until > moment)
    item = session.scalar(own.order_by(ReviewItem.id).limit(1).with_for_update(key_share=True, skip_locked=True))
    if item is None:
        free = open_.where(
            or_(ReviewItem.assigned_until.is_(None), ReviewItem.assigned_until <= moment),
            # As text, alike on both engines: the name in its JSON quotes.
            ~cast(ReviewItem.readers, Text).contains(json.dumps(expert, ensure_ascii=False), autoescape=True),
        )
        free = free.order_by(ReviewItem.score.desc(), ReviewItem.id).limit(1)
        item = session.scalar(free.with_for_update(key_share=True, skip_locked=True))
    if item is not None:
        item.assigned_to, item.assigned_until = expert, moment + lease
        session.flush()
    return item


def hold(session: Session, item_id: int, expert: str, lease: timedelta = LEASE) -> bool:
    """Note that an expert has this waiting item open; False when another has it in hand, or it waits no more."""
    moment = now()
    query = select(ReviewItem).where(ReviewItem.id == item_id, ReviewItem.status == ItemStatus.pending)
    item = session.scalar(query.with_for_update(key_share=True))
    if item is None:
        return False
    if item.assigned_to not in (None, expert) and item.assigned_until is not None and item.assigned_until > moment:
        return False
    item.assigned_to, item.assigned_until = expert, moment + lease
    session.flush()
    return True


def release(session: Session, item_id: int, expert: str) -> bool:
    """Give an item back unanswered; False when this expert does not have it in hand."""
    query = select(ReviewItem).where(ReviewItem.id == item_id, ReviewItem.assigned_to == expert)
    item = session.scalar(query.with_for_update(key_share=True))
    if item is None:
        return False
    item.assigned_to = item.assigned_until = None
    session.flush()
    return True
