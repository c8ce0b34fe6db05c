"""Addresses of crops: an item's number and a signature that nobody can guess. Nothing is stored for them."""

from __future__ import annotations

import hashlib
import hmac
import re

_NAME = re.compile(r"([1-9][0-9]{0,9})-([0-9a-f]{32})\.jpg")


def crop_name(item_id: int, key: bytes) -> str:
    """File name of the crop of this queue item, signed with the installation's key."""
    return f"{item_id}-{_signature(item_id, key)}.jpg"


def item_of(name: str, key: bytes) -> int | None:
    """The item a name was made for; None for any name that was not made with this key."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    item_id = int(match[1])
    return item_id if hmac.compare_digest(match[2], _signature(item_id, key)) else None


def _signature(item_id: int, key: bytes) -> str:
    return hmac.new(key, f"crop {item_id}".encode(), hashlib.sha256).hexdigest()[:32]
