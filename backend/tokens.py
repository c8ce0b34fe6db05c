"""Tokens of our API and dashboard: how they are made, and whose one is.

A token is 256 random bits, so one pass of sha256 is all its storage needs: a slow hash guards what people choose, by
making each guess dear; of 2^256 equally likely tokens nobody guesses one, however fast. See
docs/decisions/0032-tokens-and-sessions.md.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.exc import IntegrityError

from db import tokens
from db.models import ApiToken, now
from db.session import Database
from db.tokens import Scope

PREFIX = "cellloop_"  # by which people, and scanners of other people's repositories, know what they have found


@dataclass(frozen=True, repr=False)
class Issued:
    """A new token: the one moment in which its text is known."""

    id: int
    text: str


@dataclass(frozen=True)
class Holder:
    """Who comes with a good token. token_sha256: 64 hex digits."""

    token_id: int
    name: str
    scope: Scope
    token_sha256: str


def sha256_of(token: str) -> str:
    """What is stored of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def issue(database: Database, name: str, scope: Scope, expires_at: datetime | None = None) -> Issued:
    """Make a token and let it in from now on, at every server of this database."""
    text = PREFIX + secrets.token_urlsafe(32)
    with database.session() as session:
        return Issued(tokens.add_token(session, name, scope, sha256_of(text), expires_at).id, text)


def adopt_former(database: Database, former_token_sha256: str) -> None:
    """Let the one token in that an installation had in its file of secrets; "" when it never had one.

    It may do all it could before. Once revoked, it stays so.
    """
    if not former_token_sha256:
        return
    with database.session(read_only=True) as session:
        if tokens.with_hash(session, former_token_sha256) is not None:
            return
    try:
        with database.session() as session:
            tokens.add_token(session, "api_token of credentials.json", Scope.operate, former_token_sha256)
    except IntegrityError:
        return  # another server that starts was faster


def holder_of(database: Database, token: str) -> Holder | None:
    """Whose token this is; None when nobody's, or no longer. Compared with every live one, in the same time."""
    given = sha256_of(token)
    found = None
    for row in _live(database):
        if hmac.compare_digest(row.token_sha256, given):
            found = _holder(row)
    return found


def holder(database: Database, token_id: int) -> Holder | None:
    """Who has the token with this id; None when it is not good any more."""
    return next((_holder(row) for row in _live(database) if row.id == token_id), None)


def _live(database: Database) -> list[ApiToken]:
    with database.session(read_only=True) as session:
        return list(tokens.live(session))


def _holder(row: ApiToken) -> Holder:
    return Holder(row.id, row.name, Scope(row.scope), row.token_sha256)


def state_of(row: ApiToken) -> str:
    """Whether a token is good, in words."""
    if row.revoked_at is not None:
        return f"revoked {row.revoked_at:%Y-%m-%d %H:%M}"
    if row.expires_at is None:
        return "good until it is revoked"
    return f"{'expired' if row.expires_at <= now() else 'good until'} {row.expires_at:%Y-%m-%d %H:%M}"
