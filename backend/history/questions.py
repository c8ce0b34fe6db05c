"""Every question that the command line, REST and the dashboard can put to the record."""

from __future__ import annotations

from backend.history.computed import AGREEMENT, PARASITAEMIA
from db.errors import NotFound
from db.history import Question
from db.questions import QUESTIONS as ASKED_IN_SQL

QUESTIONS: tuple[Question, ...] = (*ASKED_IN_SQL, PARASITAEMIA, AGREEMENT)


def question(name: str) -> Question:
    """The question of this name. Raises NotFound."""
    for each in QUESTIONS:
        if each.name == name:
            return each
    raise NotFound(f"expected one of the questions {', '.join(each.name for each in QUESTIONS)}, got {name!r}")
