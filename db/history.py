"""Questions to the record: each asks one view, with the same filters for the command line, REST and Python.

An answer comes in pages. A page is continued after its last row's values, not after a count, so that rows which come
meanwhile neither repeat nor hide others.
"""

from __future__ import annotations

import base64
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.orm import Session

from db.errors import UnusableQuestion
from db.models import UtcDateTime
from db.views import View

MOST = 10_000  # rows of a page

Condition = Callable[[Any, Any], ColumnElement[bool]]  # of the view's columns and the given value
Page = tuple[Sequence[Sequence[Any]], list[Any] | None]


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
    if isinstance(value, Decimal):  # PostgreSQL's sum of counts
        return int(value) if value == value.to_integral_value() else float(value)
    return value.isoformat() if isinstance(value, datetime) else value


@dataclass(frozen=True)
class Question(ABC):
    """What can be asked: its name, what it answers, what narrows it. example: what follows `cellloop history`."""

    name: str
    about: str
    filters: tuple[Filter, ...]
    example: str

    @property
    @abstractmethod
    def view_name(self) -> str:
        """The view to ask with SQL."""

    @abstractmethod
    def types(self) -> Mapping[str, Any]:
        """SQL types by column, the same on every page."""

    @abstractmethod
    def _page(self, session: Session, chosen: Mapping[str, Any], limit: int, after: list[Any] | None) -> Page:
        """Rows behind these values (None: from the start), and what a page after them begins behind."""

    def ask(
        self, session: Session, given: Mapping[str, Any], *, limit: int = MOST, cursor: str | None = None
    ) -> Answer:
        """One page of at most `limit` rows. given: values by filter; None counts as not given.

        Raises UnusableQuestion and NotFound.
        """
        chosen = {name: value for name, value in given.items() if value is not None}
        self._check(chosen, limit)
        after = None if cursor is None else _read_cursor(cursor, self.name, chosen)
        rows, last = self._page(session, chosen, limit, after)
        return Answer(tuple(self.types()), rows, None if last is None else _cursor(self.name, chosen, last))

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


@dataclass(frozen=True)
class ViewQuestion(Question):
    """A question that a view answers. order: columns, a minus before one that falls; together unique."""

    view: View
    order: tuple[str, ...]
    as_of: View | None = None  # asked instead when a moment is given

    @property
    def view_name(self) -> str:
        return self.view.name

    def types(self) -> Mapping[str, Any]:
        return {column.name: column.type for column in self.view.table.columns}

    def _page(self, session: Session, chosen: Mapping[str, Any], limit: int, after: list[Any] | None) -> Page:
        columns = (self.as_of if self.as_of is not None and "as_of" in chosen else self.view).table.c
        query = select(*[columns[name] for name in self.types()])
        for each in self.filters:
            if each.name in chosen:
                value = chosen[each.name]
                query = query.where(each.holds(columns, each.find(session, value) if each.find else value))
        if after is not None:
            query = query.where(self._behind(columns, after))
        query = query.order_by(*[columns[n[1:]].desc() if n[0] == "-" else columns[n] for n in self.order])
        rows = session.execute(query.limit(limit + 1)).all()
        if len(rows) <= limit:
            return rows, None
        return rows[:limit], [plain(getattr(rows[limit - 1], name.lstrip("-"))) for name in self.order]

    def _behind(self, columns: Any, values: list[Any]) -> ColumnElement[bool]:
        """Rows behind these values in the question's order."""
        if len(values) != len(self.order):
            raise UnusableQuestion(NO_CURSOR)
        behind: list[ColumnElement[bool]] = []
        same: list[ColumnElement[bool]] = []
        for name, value in zip(self.order, values, strict=True):
            column = columns[name.lstrip("-")]
            if isinstance(column.type, UtcDateTime):
                value = moment(value)
            behind.append(and_(*same, column < value if name[0] == "-" else column > value))
            same.append(column == value)
        return or_(*behind)


NO_CURSOR = "cursor: expected the `next` of an earlier answer, got something else"


def _named(chosen: Mapping[str, Any]) -> dict[str, Any]:
    return {name: str(plain(chosen[name])) for name in sorted(chosen)}


def _cursor(question: str, chosen: Mapping[str, Any], last: list[Any]) -> str:
    content = json.dumps([question, _named(chosen), last], separators=(",", ":"))
    return base64.urlsafe_b64encode(content.encode()).decode().rstrip("=")


def _read_cursor(cursor: str, question: str, chosen: Mapping[str, Any]) -> list[Any]:
    try:
        content = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        name, filters, values = content
    except (ValueError, TypeError):
        raise UnusableQuestion(NO_CURSOR) from None
    if (name, filters) != (question, _named(chosen)):
        raise UnusableQuestion("cursor: expected the same question and filters as in the answer it came with")
    if not isinstance(values, list):
        raise UnusableQuestion(NO_CURSOR)
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
