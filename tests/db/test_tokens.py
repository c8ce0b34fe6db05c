"""Tokens in SQL: several good at once, each until it expires or is revoked."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy.exc import IntegrityError

from db import tokens
from db.errors import NotFound
from db.models import now
from db.session import Database
from db.tokens import Scope
from tests.builders import sha256


def test_tokens_are_good_until_they_expire_or_are_revoked(database: Database) -> None:
    moment = now()
    with database.session() as session:
        old, new, short = (
            tokens.add_token(session, name, Scope.read, sha256(name), until)
            for name, until in (("ada", None), ("ada again", None), ("ben", moment + timedelta(hours=1)))
        )
    with database.session() as session:
        assert [row.id for row in tokens.live(session, moment)] == [old.id, new.id, short.id], "side by side"
        first = tokens.revoke(session, old.id).revoked_at
        assert tokens.revoke(session, old.id).revoked_at == first
        assert [row.id for row in tokens.live(session, moment + timedelta(hours=1))] == [new.id]
        tokens.revoke_named(session, "ada again")
        assert [row.name for row in tokens.live(session, moment)] == ["ben"]
        assert len(tokens.all_tokens(session)) == 3
        assert tokens.with_hash(session, sha256("ada")) is not None
        with pytest.raises(NotFound, match="cellloop token list"):
            tokens.revoke(session, 2_000_000_000)


def test_the_database_knows_three_scopes_and_each_hash_once(database: Database) -> None:
    with database.session() as session:
        tokens.add_token(session, "ada", Scope.read, sha256("ada"))
    with pytest.raises(IntegrityError), database.session() as session:
        tokens.add_token(session, "ben", Scope.read, sha256("ada"))
    with pytest.raises(IntegrityError), database.session() as session:
        tokens.add_token(session, "ben", Scope.read, sha256("ben")).scope = "everything"


def test_each_scope_includes_those_before_it() -> None:
    included = {scope: [other for other in Scope if scope.includes(other)] for scope in Scope}
    assert included == {
        Scope.read: [Scope.read],
        Scope.review: [Scope.read, Scope.review],
        Scope.operate: list(Scope),
    }
