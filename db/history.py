"""Questions to the record: each asks one view, with the same filters for the command line, REST and Python.

An answer comes in pages. A page is continued after its last row's values, not after a count, so that rows which come
meanwhile neither repeat nor hide others.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.orm import Session

from db.errors import UnusableQuestion
from db.models import UtcDateTime
from db.views import View

MOST = 10_000  # rows of a page

Condition = Callable[[Any, Any], ColumnElement[bool]]  # of the view's columns and the given value


@dataclass(frozen=True)
class Filter:
    """What an answer can be narrowed by. kind: int | str | bool | datetime | a StrEnum.

    column: of the view, equal to the value; or `condition` says what must hold. find: turns what a person calls a
    thing into its id. required: the question is about it.
    """

    name: str
    about: str
    kind: type = str
    column: str = ""
    condition: Condition | None = None
    find: Callable[[Session, Any], Any] | None = None
    required: bool = False

    def holds(self, columns: Any, value: Any) -> ColumnElement[bool]:
        if self.condition is not None:
            return self.condition(columns, value)
        found: ColumnElement[bool] = columns[self.column or self.name] == value
        return found


@dataclass(frozen=True)
class Answer:
    """A page: the names of its columns, its rows in that order, and where the next page begins (None: it is over)."""

    columns: tuple[str, ...]
    rows: Sequence[Sequence[Any]]
    next: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; moments in ISO 8601 with their zone."""
        return {
            "rows": [dict(zip(self.columns, map(plain, row), strict=True)) for row in self.rows],
            "next": self.next,
        }


def plain(value: Any) -> Any:
    """A value of a row as JSON has it."""
    return value.isoformat() if isinstance(value, datetime) else value


@dataclass(frozen=True)
class Question:
    """A question and the view that answers it. order: columns, a minus before one that falls; together unique."""

    name: str
    about: str
    view: View
    order: tuple[str, ...]
    filters: tuple[Filter, ...]
    example: str  # what follows `cellloop history`
    as_of: View | None = None  # asked instead when a moment is given

    def types(self) -> dict[str, Any]:
        """SQL types by column, the same on every page."""
        return {column.name: column.type for column in self.view.table.columns}

    def ask(
        self, session: Session, given: Mapping[str, Any], *, limit: int = MOST, cursor: str | None = None
    ) -> Answer:
        """One page of at most `limit` rows. given: values by filter; None counts as not given.

        Raises UnusableQuestion and NotFound.
        """
        chosen = {name: value for name, value in given.items() if value is not None}
        self._check(chosen, limit)
        columns = (self.as_of if self.as_of is not None and "as_of" in chosen else self.view).table.c
        query = select(*[columns[name] for name in self.types()])
        for each in self.filters:
            if each.name in chosen:
                value = chosen[each.name]
                query = query.where(each.holds(columns, each.find(session, value) if each.find else value))
        if cursor is not None:
            query = query.where(self._after(columns, _read_cursor(cursor, self.name, chosen, len(self.order))))
        query = query.order_by(*[columns[n[1:]].desc() if n[0] == "-" else columns[n] for n in self.order])
        rows = session.execute(query.limit(limit + 1)).all()
        more = len(rows) > limit
        return Answer(tuple(self.types()), rows[:limit], self._cursor(chosen, rows[limit - 1]) if more else None)

    def pages(self, session: Session, given: Mapping[str, Any], limit: int | None = None) -> Iterator[Answer]:
        """All pages, or those of the first `limit` rows; one at least. One transaction sees one state."""
        cursor, left = None, limit
        while True:
            answer = self.ask(session, given, limit=MOST if left is None else min(MOST, left), cursor=cursor)
            yield answer
            cursor = answer.next
            left = None if left is None else left - len(answer.rows)
            if cursor is None or left == 0:
                return

    def _check(self, chosen: Mapping[str, Any], limit: int) -> None:
        names = [each.name for each in self.filters]
        for name in chosen:
            if name not in names:
                raise UnusableQuestion(f"{self.name}: expected filters among {', '.join(names)}, got {name}")
        for each in self.filters:
            if each.required and each.name not in chosen:
                raise UnusableQuestion(f"{self.name}: expected {each.name} ({each.about}), got none")
        if not 1 <= limit <= MOST:
            raise UnusableQuestion(f"{self.name}: expected a limit from 1 to {MOST}, got {limit}")

    def _cursor(self, chosen: Mapping[str, Any], row: Any) -> str:
        values = [plain(getattr(row, name.lstrip("-"))) for name in self.order]
        content = json.dumps([self.name, _named(chosen), values], separators=(",", ":"))
        return base64.urlsafe_b64encode(content.encode()).decode().rstrip("=")

    def _after(self, columns: Any, values: Sequence[Any]) -> ColumnElement[bool]:
        """Rows behind these values in the question's order."""
        behind: list[ColumnElement[bool]] = []
        same: list[ColumnElement[bool]] = []
        for name, value in zip(self.order, values, strict=True):
            column = columns[name.lstrip("-")]
            if isinstance(column.type, UtcDateTime):
                value = moment(value)
            behind.append(and_(*same, column < value if name[0] == "-" else column > value))
            same.append(column == value)
        return or_(*behind)


def _named(chosen: Mapping[str, Any]) -> dict[str, Any]:
    return {name: str(plain(chosen[name])) for name in sorted(chosen)}


def _read_cursor(cursor: str, question: str, chosen: Mapping[str, Any], length: int) -> list[Any]:
    try:
        content = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        name, filters, values = content
        assert isinstance(values, list)
        assert len(values) == length
    except (ValueError, TypeError, AssertionError):
        raise UnusableQuestion("cursor: expected the `next` of an earlier answer, got something else") from None
    if (name, filters) != (question, _named(chosen)):
        raise UnusableQuestion("cursor: expected the same question and filters as in the answer it came with")
    return values


def moment(text: str) -> datetime:
    """A moment from ISO 8601; without a zone it is taken for UTC. Raises UnusableQuestion."""
    try:
        read = datetime.fromisoformat(text)
    except (ValueError, TypeError):
        raise UnusableQuestion(
            f"expected a moment in ISO 8601, as 2026-11-26 or 2026-11-26T08:30:00+00:00, got {text!r}"
        ) from None
    return read.replace(tzinfo=UTC) if read.tzinfo is None else read
