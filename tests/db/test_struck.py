"""What is struck out of texts: a word that stands for itself, never a part of another one."""

from __future__ import annotations

import pytest

from db.struck import strike


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("P1_03.png: ring (1, 2, 3, 4)", "[forgotten]_03.png: ring (1, 2, 3, 4)"),
        ("field.png has the bytes of P1-4.png", "[forgotten] has the bytes of [forgotten]-4.png"),
        ("/smears/P1/", "/smears/[forgotten]/"),
        ("P12.png and aP1.png and 2field.png", "P12.png and aP1.png and 2field.png"),
        ("É1: P1É", "É1: P1É"),
    ],
)
def test_words_are_struck_where_they_stand_for_themselves(said: str, left: str) -> None:
    assert strike(["P1", "field.png"], said) == left
    assert strike([], said) == said
