"""What turns the cells shown into the expert's answer."""

from __future__ import annotations

import numpy as np

from al_loop.corrections import Cells, Corrections, corrections

NOWHERE = np.zeros((0, 4), dtype=np.float32)


def cells(*named: tuple[float, str]) -> Cells:
    """(left edge, class) of squares in a row."""
    boxes = np.array([(x, 0, x + 40, 40) for x, _ in named], dtype=np.float32).reshape(-1, 4)
    return Cells(boxes, tuple(label for _, label in named))


def test_each_way_of_being_wrong_counts_once() -> None:
    shown = cells((0, "ring"), (100, "ring"), (200, "red blood cell"), (300, "ring"))
    answer = cells((3, "ring"), (100, "schizont"), (400, "ring"), (300, "ring"))
    assert corrections(shown, answer, NOWHERE) == Corrections(added=1, deleted=1, relabelled=1)
    assert corrections(shown, shown, NOWHERE).total == 0
    assert corrections(cells(), answer, NOWHERE) == Corrections(4, 0, 0)


def test_where_the_expert_could_not_decide_nothing_is_wrong() -> None:
    shown = cells((0, "ring"), (100, "ring"))
    undecided = np.array([(100, 0, 140, 40)], dtype=np.float32)
    assert corrections(shown, cells((0, "ring")), undecided).total == 0
    assert corrections(shown, cells((0, "ring")), NOWHERE).deleted == 1
