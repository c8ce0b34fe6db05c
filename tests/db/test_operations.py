"""What somebody who watches over an installation asks the record."""

from __future__ import annotations

from datetime import timedelta

from db import operations
from db.models import ApiToken, now
from db.session import Database
from tests.builders import sha256


def test_an_empty_record_has_nothing_to_tell(database: Database) -> None:
    with database.session(read_only=True) as session:
        found = operations.operations(session)
    assert (found.pair, found.inbox, found.requests, found.newest_review) == (None, (0, None), (0, None), 0)
    assert found.queue == found.open_runs == found.workers == []


def test_tokens_that_end_soon_or_have_come_first_to_end_first(database: Database) -> None:
    def token(name: str, days: float | None, revoked: bool = False) -> ApiToken:
        ends = None if days is None else now() + timedelta(days=days)
        return ApiToken(
            name=name, scope="read", token_sha256=sha256(name), expires_at=ends, revoked_at=now() if revoked else None
        )

    with database.session() as session:
        session.add_all([token("soon", 3), token("over", -1), token("later", 30), token("never", None)])
        session.add(token("revoked", 2, revoked=True))
        session.flush()
        found = operations.tokens_ending(session, now() + timedelta(days=14))
    assert [token.name for token in found] == ["over", "soon"]


def test_the_databases_clock_has_a_zone(database: Database) -> None:
    with database.session(read_only=True) as session:
        assert abs(operations.database_now(session) - now()) < timedelta(seconds=30)
