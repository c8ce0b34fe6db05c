"""Ids that are used once, also where they outlive their row: in tombstones, in what a version has learned from, in the
addresses of crops.

PostgreSQL's sequences never go back. SQLite gives the highest id there is plus one, which a forgotten patient may have
had: so a removal leaves behind the highest ids it removed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db.models import Forgetting, Image, LabelRevision, ReviewItem

HIGHEST = "highest"  # in `Forgetting.removed`: {table: the highest id that went}
OUTLIVING = (Image, LabelRevision, ReviewItem)


def highest_gone(removals: Iterable[Mapping[str, Any]], table: str) -> int:
    """The highest id that forgettings took from this table, 0 for none. removals: their `removed`."""
    return max((removed.get(HIGHEST, {}).get(table, 0) for removed in removals), default=0)


def ids_for(session: Session, model: type[Any], count: int) -> list[dict[str, int]]:
    """{"id": number} for so many new rows of one of the `OUTLIVING`; {} each where the database numbers them well.

    That is everywhere but where it might give them ids that a removed row has had.
    """
    on_sqlite = count and session.get_bind().dialect.name == "sqlite"
    gone = highest_gone(session.scalars(select(Forgetting.removed)), model.__tablename__) if on_sqlite else 0
    if not gone:
        return [{}] * count
    first = max(gone, session.scalar(select(func.max(model.id))) or 0) + 1
    return [{"id": number} for number in range(first, first + count)]


def give_ids(session: Session, rows: Sequence[Any]) -> None:
    """Number new rows of one of the `OUTLIVING` where that is needed."""
    for row, number in zip(rows, ids_for(session, type(rows[0]), len(rows)) if rows else [], strict=True):
        for name, value in number.items():
            setattr(row, name, value)


def higher(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    """The higher id of each table."""
    return {table: max(one.get(table, 0), other.get(table, 0)) for table in {*one, *other}}
