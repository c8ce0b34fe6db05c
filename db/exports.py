"""What an export takes and what it leaves out: completely labelled images, as of a moment, and how much else there is.

A moment is the experts' time: what they had submitted by then, whenever it was recorded.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, func, or_, select
from sqlalchemy.orm import Session

from db.chunks import chunks
from db.history import moment
from db.models import Image, LabelRevision, Review, ReviewStatus, Split, Way


@dataclass(frozen=True)
class Scope:
    """Which images are asked for: of a split, of a group (with or without its data set's name before it), by then."""

    split: Split | None = None
    group: str | None = None
    as_of: datetime | None = None

    @classmethod
    def of(cls, split: str | None, group: str | None, as_of: str | None) -> Scope:
        """As a person asks. Raises UnusableQuestion for a moment that is none."""
        return cls(None if split is None else Split(split), group, None if as_of is None else moment(as_of))

    def narrow(self, query: Select[Any]) -> Select[Any]:
        """The query over images, with these conditions."""
        if self.split is not None:
            query = query.where(Image.split == self.split)
        if self.group is not None:
            query = query.where(or_(Image.group == self.group, Image.group == Image.dataset + ":" + self.group))
        return query


def _complete(as_of: datetime | None) -> Select[int]:
    """Ids of images with a thread whose last review by then submits the whole field; an import counts as one."""
    last = select(func.max(Review.id)).where(Review.way == Way.field).group_by(Review.thread)
    if as_of is not None:
        last = last.where(Review.revised_at <= as_of)
    return select(Review.image_id).where(Review.id.in_(last), Review.status == ReviewStatus.submitted)


def complete(session: Session, scope: Scope) -> Sequence[Image]:
    """The completely labelled images, by name and content, so that the order is the same in every record."""
    query = scope.narrow(select(Image).where(Image.id.in_(_complete(scope.as_of))))
    return session.scalars(query.order_by(Image.name, Image.sha256)).all()


def incomplete(session: Session, scope: Scope) -> tuple[list[int], int]:
    """Ids of the other images of which anything was said by then, withdrawn or not, and the number of the rest."""
    said = select(LabelRevision.image_id)
    query = scope.narrow(select(Image.id).where(Image.id.not_in(_complete(scope.as_of))))
    if scope.as_of is not None:
        said = said.where(LabelRevision.decided_at <= scope.as_of)
        query = query.where(Image.created_at <= scope.as_of)
    spoken_of = list(session.scalars(query.where(Image.id.in_(said)).order_by(Image.id)))
    total = session.scalar(select(func.count()).select_from(query.subquery())) or 0
    return spoken_of, total - len(spoken_of)


def answers(session: Session, image_ids: Collection[int], as_of: datetime | None) -> tuple[int, int]:
    """How many answers about cells of these images were given by the moment, and how many after it."""
    by_then = later = 0
    for chunk in chunks(image_ids):
        query = select(func.count()).where(LabelRevision.image_id.in_(chunk))
        total = session.scalar(query) or 0
        given = total if as_of is None else session.scalar(query.where(LabelRevision.decided_at <= as_of)) or 0
        by_then, later = by_then + given, later + total - given
    return by_then, later
