"""Parasitaemia and agreement as questions: the numbers of the history made by hand."""

from __future__ import annotations

import pytest
from sqlalchemy.orm import Session

from backend.history.computed import AGREEMENT, PARASITAEMIA, By, Every
from db.errors import UnusableQuestion
from db.history import Question
from db.session import Database
from tests.builders import at
from tests.made_history import make_history


def ask(session: Session, question: Question, *columns: str, **given: object) -> list[tuple[object, ...]]:
    answer = question.ask(session, given)
    return [tuple(row[answer.columns.index(name)] for name in columns) for row in answer.rows]


def test_parasitaemia_by_labels_and_by_a_pair(database: Database) -> None:
    wanted = ("group", "fields", "cells", "infected", "rings", "percent")
    with database.session() as session:
        make_history(session)
        assert ask(session, PARASITAEMIA, *wanted) == [("S1", 1, 2, 1, 1, 50.0)], (
            "S2's field is not completely labelled"
        )
        assert ask(session, PARASITAEMIA, *wanted, by=By.patient, source="A") == [("P2", 1, 1, 1, 1, 100.0)]
        assert ask(session, PARASITAEMIA, "group", by=By.image, image="S1-f1.png") == [("S1-f1.png",)]
        assert ask(session, PARASITAEMIA, "group", since=at(0)) == [], "it was taken an hour before"
        ((low, high, method),) = ask(session, PARASITAEMIA, "low", "high", "method", by=By.image)
    assert (low, high) == pytest.approx((9.4531, 90.5469), abs=1e-3), "Wilson's interval of 1 in 2"
    assert method == "wilson"


def test_agreement_of_those_who_stand_by_what_they_said(database: Database) -> None:
    with database.session() as session:
        make_history(session)
        found = ask(session, AGREEMENT, "period", "first", "second", "cells", "same", by=Every.month)
        pages = list(AGREEMENT.pages(session, {}, limit=1))
        assert [len(page.rows) for page in pages] == [1]
        assert AGREEMENT.ask(session, {}, limit=1, cursor=pages[0].next).rows == AGREEMENT.ask(session, {}).rows[1:2]
        with pytest.raises(UnusableQuestion, match="the same question and filters"):
            AGREEMENT.ask(session, {"imports": True}, cursor=pages[0].next)
    assert found[0] == ("2026-01", "ada", "carol", 1, 0.0), "bob has withdrawn"
    assert [row[1] for row in found[1:]] == [None, None, None]
