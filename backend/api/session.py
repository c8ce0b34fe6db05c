"""The dashboard's session: a signed date until which it lasts. Nothing is stored for it."""

from __future__ import annotations

import hashlib
import hmac
import re
from datetime import UTC, datetime, timedelta

LIFETIME = timedelta(hours=12)

_VALUE = re.compile(r"([0-9]{1,12})-([0-9a-f]{64})")


def cookie_name(key: bytes) -> str:
    """Name of the cookie. Browsers send cookies to every port of a host: two installations must not share one."""
    return f"cellloop_{hashlib.sha256(key).hexdigest()[:8]}"


def new_session(key: bytes, moment: datetime | None = None) -> str:
    """A session that begins at this moment (now), as the cookie's value."""
    until = int(((moment or datetime.now(UTC)) + LIFETIME).timestamp())
    return f"{until}-{_signature(until, key)}"


def lasts(value: str, key: bytes, moment: datetime | None = None) -> bool:
    """Whether this value was signed with this key and still lasts at this moment (now)."""
    match = _VALUE.fullmatch(value)
    if match is None:
        return False
    until = int(match[1])
    genuine = hmac.compare_digest(match[2], _signature(until, key))
    return genuine and (moment or datetime.now(UTC)).timestamp() < until


def _signature(until: int, key: bytes) -> str:
    return hmac.new(key, f"session {until}".encode(), hashlib.sha256).hexdigest()
