"""A thing that does not hold although it should."""

from __future__ import annotations

from typing import NamedTuple


class Violation(NamedTuple):
    """kind: lost | doubled | stuck | wrong. what: in one line."""

    kind: str
    what: str
