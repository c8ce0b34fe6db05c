"""How far recent fields are from those the serving pair was accepted on."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.models import DriftCheck


def add_check(
    session: Session, pair_id: int, *, drifted: bool, reasons: list[str], numbers: dict[str, Any]
) -> DriftCheck:
    """Append what a check of this pair found."""
    row = DriftCheck(pair_id=pair_id, drifted=drifted, reasons=reasons, numbers=numbers)
    session.add(row)
    session.flush()
    return row


def newest_check(session: Session, pair_id: int) -> DriftCheck | None:
    """The last check of this pair, None before the first."""
    return session.scalar(
        select(DriftCheck).where(DriftCheck.pair_id == pair_id).order_by(DriftCheck.id.desc()).limit(1)
    )
