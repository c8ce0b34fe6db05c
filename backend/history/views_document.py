"""What `docs/views.md` says of questions, views and columns, made from the code.

Prose and examples are written by hand. What stands between `<!-- made: NAME -->` and `<!-- end -->` is made anew by

    python -m backend.history.views_document docs/views.md
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlencode

from sqlalchemy import JSON, Boolean, Float, Integer, String
from sqlalchemy.types import TypeEngine

from backend.history.questions import QUESTIONS
from db.definitions import VIEWS
from db.history import Question, ViewQuestion
from db.models import UtcDateTime
from db.views import View

# A column's type as an analyst thinks of it; the document says what each is on either engine.
TYPES: tuple[tuple[type, str], ...] = (
    (Boolean, "boolean"),
    (Integer, "integer"),
    (Float, "number"),
    (String, "text"),
    (JSON, "JSON"),
    (UtcDateTime, "moment"),
)


def renewed(text: str) -> str:
    """The document with everything that comes from the code made anew."""
    made = {"questions": _questions(), **{view.name: _about(view) for view in VIEWS}}
    for name, content in made.items():
        block = re.compile(rf"(<!-- made: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        text = block.sub(lambda found, content=content: f"{found[1]}\n{content}\n{found[2]}", text)  # type: ignore[misc]
    return text


def type_word(of: TypeEngine[object]) -> str:
    """What the document calls this type."""
    return next(word for kind, word in TYPES if isinstance(of, kind))


def rest_call(question: Question) -> str:
    """The path and query that ask what the question's example asks."""
    filters = {each.name for each in question.filters}
    required = [each.name for each in question.filters if each.required]
    given: list[tuple[str, str]] = []
    words = iter(shlex.split(question.example)[1:])
    for word in words:
        if not word.startswith("--"):
            given.append((required.pop(0), word))
        elif (name := word.removeprefix("--").replace("-", "_")) in filters:  # else it says how to print
            given.append((name, next(words)))
    return f"/api/v1/history/{question.name}" + (f"?{urlencode(given, safe=':')}" if given else "")


def _questions() -> str:
    rows = [
        (each.about, f"`cellloop history {each.example}`", f"`GET {rest_call(each)}`", _views_of(each))
        for each in QUESTIONS
    ]
    return _table(("question", "command", "REST call", "view"), rows)


def _views_of(question: Question) -> str:
    names = [question.view_name]
    if isinstance(question, ViewQuestion) and question.as_of is not None:
        names.append(question.as_of.name)
    return ", ".join(f"[`{name}`](#{name})" for name in names)


def _about(view: View) -> str:
    """What a row is, the key, and a table of the columns."""
    rows = [(f"`{c.name}`", type_word(c.type), view.meaning(c.name)) for c in view.table.columns]
    key = ", ".join(f"`{name}`" for name in view.key)
    return f"A row: {view.about}. Key: {key}.\n\n{_table(('column', 'type', 'meaning'), rows)}"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines) + "\n"


if __name__ == "__main__":
    file = Path(sys.argv[1])
    file.write_text(renewed(file.read_text(encoding="utf-8")), encoding="utf-8")
