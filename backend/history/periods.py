"""Spans of time that numbers are told by, in UTC."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

PERIODS: Mapping[str, str] = {"day": "%Y-%m-%d", "week": "%G-W%V", "month": "%Y-%m", "all": "all"}


def period_of(moment: datetime, period: str) -> str:
    """The day, week or month in which a moment with a time zone lies: 2026-11-26, 2026-W48 (ISO), 2026-11, or "all".

    Raises ValueError for a period that is none of PERIODS.
    """
    if period not in PERIODS:
        raise ValueError(f"expected a period of {', '.join(PERIODS)}, got {period!r}")
    return moment.astimezone(UTC).strftime(PERIODS[period])
