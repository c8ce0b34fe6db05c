"""Counts per image for parasitaemia: rows of the view v_parasitaemia (`db/views_counts.py`)."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.views_counts import PARASITAEMIA


def counted_images(
    session: Session,
    source: str | None = "labels",
    *,
    slide: str | None = None,
    patient: str | None = None,
    image_id: int | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> list[dict[str, Any]]:
    """The rows by column name, by source and image; of everything that is not given, all.

    source: "labels" or a pair's name. since <= at < until, moments with a time zone.
    """
    view = PARASITAEMIA.table.c
    wanted = {view.source: source, view.slide: slide, view.patient: patient, view.image_id: image_id}
    query = select(*view).where(*(column == value for column, value in wanted.items() if value is not None))
    if since is not None:
        query = query.where(view.at >= since)
    if until is not None:
        query = query.where(view.at < until)
    return [dict(row) for row in session.execute(query.order_by(view.source, view.image_id)).mappings()]
