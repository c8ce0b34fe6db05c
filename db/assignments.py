"""Who has which item of the queue in hand: leases that end by themselves when an expert walks away."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from functools import cache

from sqlalchemy import Text, and_, bindparam, case, cast, func, or_, select, update
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import ReturningUpdate

from db.models import ItemStatus, ReviewItem, Way, now
from db.queue import in_hands

LEASE = timedelta(minutes=30)
HEAD = 5  # experts at work in fields at the same time, as a rule


def take(session: Session, expert: str, way: Way | None = None, lease: timedelta = LEASE) -> ReviewItem | None:
    """The most valuable item nobody has in hand, now in this expert's; the one they have already, if any.

    Never an item this expert has read before. Any number of experts may ask at once: each gets another item, without
    waiting for the others (PostgreSQL skips rows that are being taken; SQLite's writers take turns). None: nothing
    is left for them.
    """
    moment = now()
    said = {"now_": moment, "until_": moment + lease, "expert_": expert, "way_": way}
    return session.scalar(_take(way is not None), said | {"quoted_": json.dumps(expert, ensure_ascii=False)})


@cache
def _take(by_way: bool) -> ReturningUpdate[ReviewItem]:
    """One statement, built once: with fifty experts asking at once, all that is done for each is waited for fifty
    times."""
    moment = bindparam("now_", type_=ReviewItem.assigned_until.type)
    expert = bindparam("expert_", type_=ReviewItem.assigned_to.type)
    own = and_(ReviewItem.assigned_to == expert, ReviewItem.assigned_until > moment)
    free = or_(ReviewItem.assigned_until.is_(None), ReviewItem.assigned_until <= moment)
    # The name in its JSON quotes, within the column as text: alike on both engines.
    readers = cast(ReviewItem.readers, Text)
    read = func.replace(readers, bindparam("quoted_", type_=Text), "") != readers
    best = select(ReviewItem.id).where(ReviewItem.status == ItemStatus.pending, or_(own, and_(free, ~read)))
    if by_way:
        best = best.where(ReviewItem.way == bindparam("way_", type_=ReviewItem.way.type))
    best = best.order_by(case((own, 0), else_=1), ReviewItem.score.desc(), ReviewItem.id).limit(1)
    return (
        update(ReviewItem)
        .where(ReviewItem.id == best.with_for_update(key_share=True, skip_locked=True).scalar_subquery())
        .values(assigned_to=expert, assigned_until=bindparam("until_", type_=ReviewItem.assigned_until.type))
        .returning(ReviewItem)
        .execution_options(synchronize_session=False, populate_existing=True)
    )


def hold(session: Session, item_id: int, expert: str, lease: timedelta = LEASE) -> bool:
    """Note that an expert has this waiting item open; False when another has it in hand, or it waits no more."""
    moment = now()
    query = select(ReviewItem).where(ReviewItem.id == item_id, ReviewItem.status == ItemStatus.pending)
    item = session.scalar(query.with_for_update(key_share=True))
    if item is None:
        return False
    if item.assigned_to != expert and in_hands(item, moment):
        return False
    item.assigned_to, item.assigned_until = expert, moment + lease
    session.flush()
    return True


def is_held(session: Session, item_id: int, lease: timedelta = LEASE) -> bool:
    """Whether somebody has this item in hand for half a lease at least: then there is nothing to renew yet."""
    until = session.scalar(select(ReviewItem.assigned_until).where(ReviewItem.id == item_id))
    return until is not None and until - now() > lease / 2


def release(session: Session, item_id: int, expert: str) -> bool:
    """Give an item back unanswered; False when this expert does not have it in hand."""
    query = select(ReviewItem).where(ReviewItem.id == item_id, ReviewItem.assigned_to == expert)
    item = session.scalar(query.with_for_update(key_share=True))
    if item is None:
        return False
    item.assigned_to = item.assigned_until = None
    session.flush()
    return True


def pinned(items: Sequence[ReviewItem]) -> dict[int, Way]:
    """Images that stay in their way of reviewing, by what waits: somebody has one of their items in hand, or has
    probably been given their field by Label Studio, which does not tell (the first of the fields' order).
    """
    moment = now()
    held = {i.image_id: i.way for i in items if in_hands(i, moment)}
    fields = sorted((i for i in items if i.way == Way.field), key=lambda item: (-item.score, item.image_id))
    return {item.image_id: Way.field for item in fields[:HEAD]} | held
