"""The dashboard's session: until when it lasts, and whose token opened it, signed. Nothing is stored for it.

The signature covers the token's hash, so that a session belongs to that token alone, and ends with it; what it may do
is the token's scope.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from backend.tokens import Holder

LIFETIME = timedelta(hours=12)

_VALUE = re.compile(r"([0-9]{1,12})-([0-9]{1,10})-([0-9a-f]{64})")


@dataclass(frozen=True)
class Claim:
    """What a cookie says of itself, before anybody has looked whether it is genuine."""

    until: int  # seconds since 1970
    token_id: int
    signature: str

    def genuine(self, holder: Holder, key: bytes, moment: datetime | None = None) -> bool:
        """Whether we signed this for the holder's token, and it still lasts at this moment (now)."""
        ours = hmac.compare_digest(self.signature, _signature(self.until, self.token_id, holder.token_sha256, key))
        return ours and (moment or datetime.now(UTC)).timestamp() < self.until


def cookie_name(key: bytes) -> str:
    """Name of the cookie. Browsers send cookies to every port of a host: two installations must not share one."""
    return f"cellloop_{hashlib.sha256(key).hexdigest()[:8]}"


def new_session(holder: Holder, key: bytes, moment: datetime | None = None) -> str:
    """A session that begins at this moment (now), as the cookie's value."""
    until = int(((moment or datetime.now(UTC)) + LIFETIME).timestamp())
    return f"{until}-{holder.token_id}-{_signature(until, holder.token_id, holder.token_sha256, key)}"


def claim(value: str) -> Claim | None:
    """What the cookie's value claims; None for a value that we cannot have made."""
    match = _VALUE.fullmatch(value)
    return None if match is None else Claim(int(match[1]), int(match[2]), match[3])


def form_token(value: str, key: bytes) -> str:
    """What every form that changes something carries: it proves that a page of this very session was its origin."""
    return hmac.new(key, f"form {value}".encode(), hashlib.sha256).hexdigest()


def _signature(until: int, token_id: int, token_sha256: str, key: bytes) -> str:
    said = f"session {until} {token_id} {token_sha256}"
    return hmac.new(key, said.encode(), hashlib.sha256).hexdigest()
