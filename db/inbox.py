"""Webhook calls, stored before they are answered."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from db.models import InboxEvent, now


def receive(session: Session, action: str, payload: dict[str, Any]) -> InboxEvent:
    """Store a call. It counts once the session has committed: answer only then."""
    event = InboxEvent(action=action[:64], payload=payload)
    session.add(event)
    session.flush()
    return event


def unhandled(session: Session, limit: int | None = None) -> Sequence[InboxEvent]:
    """Calls nobody has acted on, oldest first."""
    query = select(InboxEvent).where(InboxEvent.handled_at.is_(None)).order_by(InboxEvent.id).limit(limit)
    return session.scalars(query).all()


def handle(session: Session, ids: Iterable[int]) -> int:
    """Mark calls as acted on; how many were new."""
    changed = session.execute(
        update(InboxEvent)
        .where(InboxEvent.id.in_(list(ids)), InboxEvent.handled_at.is_(None))
        .values(handled_at=now())
        .returning(InboxEvent.id)
        .execution_options(synchronize_session="fetch")
    )
    return len(changed.all())
