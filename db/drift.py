"""How far recent fields are from those the serving pair was accepted on."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db.chunks import chunks
from db.images import lock
from db.models import DriftCheck, Image, ImageStain, PackedPrediction, Prediction, PromotionDecision

STAIN = ("mean_red", "mean_green", "mean_blue", "sd_red", "sd_green", "sd_blue")


@dataclass(frozen=True)
class SeenField:
    """A field that a pair has predicted. cells: packed (`db/packed.py`), `count` of them. group: its slide or block."""

    image_id: int
    group: str
    count: int
    cells: bytes


def accepted_at(session: Session, version_ids: Collection[int]) -> datetime | None:
    """When the last of these versions began to serve: what came later, nobody could accept the pair on."""
    query = select(func.max(PromotionDecision.decided_at)).where(
        PromotionDecision.version_id.in_(version_ids), PromotionDecision.promote.is_(True)
    )
    return session.scalar(query)


def seen_fields(session: Session, pair_id: int, moment: datetime, *, since: bool, limit: int) -> list[SeenField]:
    """What the pair saw in the images that came since a moment, or before it; those that came last, first."""
    query = (
        select(Image.id, Image.group, PackedPrediction.count, PackedPrediction.cells)
        .join(Prediction, Prediction.image_id == Image.id)
        .join(PackedPrediction, PackedPrediction.prediction_id == Prediction.id)
        .where(Prediction.pair_id == pair_id, Image.created_at >= moment if since else Image.created_at < moment)
        .order_by(Image.id.desc())
        .limit(limit)
    )
    return [SeenField(*row) for row in session.execute(query)]


def stains(session: Session, image_ids: Sequence[int]) -> dict[int, tuple[float, ...]]:
    """The six numbers of STAIN by image; images that nobody has looked at are absent."""
    found: dict[int, tuple[float, ...]] = {}
    for chunk in chunks(image_ids):
        columns = [getattr(ImageStain, name) for name in STAIN]
        rows = session.execute(select(ImageStain.image_id, *columns).where(ImageStain.image_id.in_(chunk)))
        found |= {row[0]: tuple(row[1:]) for row in rows}
    return found


def add_stain(session: Session, image_id: int, values: Sequence[float]) -> None:
    """Keep a field's six numbers; they follow from its file, so those that are known stay. Raises NotFound."""
    lock(session, image_id)
    if session.get(ImageStain, image_id) is None:
        session.add(ImageStain(image_id=image_id, **dict(zip(STAIN, values, strict=True))))
        session.flush()


def images_known(session: Session) -> int:
    """Id of the newest image: how far the record had come."""
    return session.scalar(select(func.max(Image.id))) or 0


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
