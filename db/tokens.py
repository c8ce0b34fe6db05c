"""Tokens of our API and dashboard: whose, for what, until when. Their hashes alone; no token is stored anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from db.errors import NotFound
from db.models import ApiToken, now


class Scope(StrEnum):
    """What a token is good for, the least first. Each includes those before it."""

    read = "read"  # look at everything
    review = "review"  # and take items of the queue
    operate = "operate"  # and decide what is trained and what serves

    def includes(self, other: Scope) -> bool:
        """Whether who has this may do what needs the other."""
        order = list(Scope)
        return order.index(self) >= order.index(other)


def add_token(
    session: Session, name: str, scope: Scope, token_sha256: str, expires_at: datetime | None = None
) -> ApiToken:
    """Let a token in. expires_at: None lasts until it is revoked."""
    token = ApiToken(name=name, scope=scope.value, token_sha256=token_sha256, expires_at=expires_at)
    session.add(token)
    session.flush()
    return token


def with_hash(session: Session, token_sha256: str) -> ApiToken | None:
    """The token with this hash, good or not."""
    return session.scalar(select(ApiToken).where(ApiToken.token_sha256 == token_sha256))


def live(session: Session, moment: datetime | None = None) -> Sequence[ApiToken]:
    """Every token that is good at this moment (now), oldest first."""
    query = select(ApiToken).where(
        ApiToken.revoked_at.is_(None),
        or_(ApiToken.expires_at.is_(None), ApiToken.expires_at > (moment or now())),
    )
    return session.scalars(query.order_by(ApiToken.id)).all()


def all_tokens(session: Session) -> Sequence[ApiToken]:
    """Every token there ever was, oldest first."""
    return session.scalars(select(ApiToken).order_by(ApiToken.id)).all()


def revoke(session: Session, token_id: int) -> ApiToken:
    """End a token now, and every session opened with it. Revoked again, it keeps its first moment. Raises NotFound."""
    token = session.get(ApiToken, token_id)
    if token is None:
        raise NotFound(f"expected the id of a token, got {token_id}; see: cellloop token list")
    token.revoked_at = token.revoked_at or now()
    session.flush()
    return token


def revoke_named(session: Session, name: str) -> None:
    """End every token of this name."""
    for token in live(session):
        if token.name == name:
            revoke(session, token.id)
