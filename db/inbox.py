"""Webhook calls, stored before they are answered, and what people ask for on the dashboard: the worker's wake-ups."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from db.models import InboxEvent, now

RETRAIN_ASKED = "RETRAIN_ASKED"  # our own: the dashboard's button; webhooks cannot bring it


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


def asked(session: Session) -> InboxEvent | None:
    """The newest wish of a person that the model be retrained which nobody has acted on. payload: why, and by whom."""
    query = select(InboxEvent).where(InboxEvent.handled_at.is_(None), InboxEvent.action == RETRAIN_ASKED)
    return session.scalar(query.order_by(InboxEvent.id.desc()).limit(1))


def annotation_ids(session: Session) -> set[int]:
    """Ids of all annotations that calls were about, acted on or not."""
    return {
        number for payload in session.scalars(select(InboxEvent.payload)) for number in payload.get("annotations", ())
    }


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
