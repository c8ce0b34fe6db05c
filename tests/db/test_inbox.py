"""The inbox: a webhook call is safe once it is stored."""

from __future__ import annotations

from db import inbox
from db.session import Database


def test_events_wait_until_they_are_handled(database: Database) -> None:
    with database.session() as session:
        first = inbox.receive(session, "ANNOTATION_CREATED", {"annotation": {"id": 1}, "text": "µ"})
        second = inbox.receive(session, "X" * 100, {})
    with database.session() as session:
        assert [event.payload for event in inbox.unhandled(session)] == [first.payload, {}]
        assert [event.id for event in inbox.unhandled(session, limit=1)] == [first.id]
        assert inbox.unhandled(session)[1].action == "X" * 64
        assert inbox.handle(session, [first.id]) == 1
    with database.session() as session:
        assert inbox.handle(session, [first.id, second.id]) == 1
        assert inbox.unhandled(session) == []
        assert inbox.handle(session, []) == 0


def test_a_persons_wish_waits_until_it_is_handled(database: Database) -> None:
    with database.session() as session:
        inbox.receive(session, "ANNOTATION_CREATED", {})
        assert inbox.asked(session) is None
        wish = inbox.receive(session, inbox.RETRAIN_ASKED, {"why": "a new stain", "by": "ada"})
        assert inbox.asked(session) is wish
        inbox.handle(session, [wish.id])
        assert inbox.asked(session) is None
