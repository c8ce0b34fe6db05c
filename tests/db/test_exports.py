"""What an export takes: complete images as of a moment, in an order of their own, and the number of everything else."""

from __future__ import annotations

import pytest
from sqlalchemy.orm import Session

from db.errors import UnusableQuestion
from db.exports import Scope, answers, complete, incomplete
from db.models import Split, Way
from db.session import Database
from tests.builders import add_cell, add_image, add_review, at, say


def names(session: Session, scope: Scope) -> list[str]:
    return [image.name for image in complete(session, scope)]


def test_complete_images_as_of_a_moment(database: Database) -> None:
    with database.session() as session:
        early, late, back = (add_image(session, name, dataset="iml", group=f"iml:{name}") for name in ("b", "a", "c"))
        add_review(session, early, "ls:1:1", 1)
        add_review(session, late, "ls:1:2", 10)
        add_review(session, back, "ls:1:3", 2)
        add_review(session, back, "ls:1:3", 5, "withdrawn")
        partly, silent = add_image(session, "d"), add_image(session, "e", split="test")
        cell = add_cell(session, partly)
        say(session, cell, "ring", "ls:2:1", 3, way=Way.cell)
        assert names(session, Scope()) == ["a", "b"]
        assert names(session, Scope(as_of=at(4))) == ["b", "c"]
        assert names(session, Scope(as_of=at(0))) == []
        assert names(session, Scope(group="a")) == names(session, Scope(group="iml:a")) == ["a"]
        assert names(session, Scope(split=Split.test)) == []
        assert incomplete(session, Scope()) == ([partly.id], 2)
        assert incomplete(session, Scope(split=Split.test)) == ([], 1)
        assert incomplete(session, Scope(as_of=at(4))) == ([], 0)  # none of these images was there then
        assert silent.id != partly.id


def test_answers_are_counted_by_the_moment_they_were_given(database: Database) -> None:
    with database.session() as session:
        image = add_image(session)
        cell = add_cell(session, image)
        for minute in (1, 2, 9):
            say(session, cell, "ring", minute=minute)
        say(session, add_cell(session, add_image(session)), "ring", "ls:1:2", 1)
        assert answers(session, [image.id], None) == (3, 0)
        assert answers(session, [image.id], at(2)) == (2, 1)
        assert answers(session, [], at(2)) == (0, 0)


def test_a_scope_as_people_ask() -> None:
    scope = Scope.of("test", "S1", "2026-01-01T12:05")
    assert (scope.split, scope.group, scope.as_of) == (Split.test, "S1", at(5))
    assert Scope.of(None, None, None) == Scope()
    with pytest.raises(UnusableQuestion, match="ISO 8601"):
        Scope.of(None, None, "yesterday")
