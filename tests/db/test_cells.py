"""The identity of cells: a box finds the cell it belongs to."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from db import cells
from db.errors import NotFound, RecordError
from db.session import Database
from tests.builders import BOX, NOBODY, add_active_pair, add_cell, add_image, add_prediction, say

LEFT, RIGHT = (0.0, 0.0, 10.0, 10.0), (100.0, 0.0, 110.0, 10.0)


def shifted(box: cells.Box, dx: float) -> cells.Box:
    return (box[0] + dx, box[1], box[2] + dx, box[3])


def test_iou_of_known_boxes() -> None:
    a = [LEFT, RIGHT]
    b = [LEFT, shifted(LEFT, 5), (0.0, 0.0, 10.0, 5.0), shifted(LEFT, 10)]
    np.testing.assert_allclose(cells.iou(a, b), np.array([[1, 1 / 3, 0.5, 0], [0, 0, 0, 0]]))


def test_match_gives_each_box_away_once_best_first() -> None:
    known = [LEFT, shifted(LEFT, 2)]
    assert cells.match([shifted(LEFT, 1.9), shifted(LEFT, 2)], known) == {1: 1, 0: 0}
    assert cells.match([LEFT, shifted(LEFT, 0.5)], [LEFT]) == {0: 0}
    assert cells.match([], known) == {}
    assert cells.match([RIGHT], known) == {}


def test_match_takes_an_iou_of_exactly_one_half() -> None:
    assert cells.match([(0.0, 0.0, 10.0, 5.0)], [LEFT]) == {0: 0}
    assert cells.match([(0.0, 0.0, 10.0, 4.9)], [LEFT]) == {}


boxes = st.lists(
    st.tuples(*[st.integers(0, 30)] * 2, *[st.integers(5, 20)] * 2).map(
        lambda b: (float(b[0]), float(b[1]), float(b[0] + b[2]), float(b[1] + b[3]))
    ),
    max_size=6,
)


@given(a=boxes, b=boxes)
def test_match_is_one_to_one_above_the_threshold_and_leaves_no_free_pair(
    a: list[cells.Box], b: list[cells.Box]
) -> None:
    pairs = cells.match(a, b)
    assert len(set(pairs.values())) == len(pairs)
    overlaps = cells.iou(a, b)
    assert all(overlaps[i, j] >= 0.5 for i, j in pairs.items())
    for i in set(range(len(a))) - set(pairs):
        for j in set(range(len(b))) - set(pairs.values()):
            assert overlaps[i, j] < 0.5


def test_add_cell_keeps_a_key_and_makes_up_others(database: Database) -> None:
    with database.session() as session:
        image = add_image(session)
        named = cells.add_cell(session, image.id, "drawn-by-ada")
        assert cells.add_cell(session, image.id, "drawn-by-ada") is named
        other = cells.add_cell(session, image.id)
        assert len(other.key) == 10
        assert cells.cells_by_key(session, image.id) == {"drawn-by-ada": named, other.key: other}
        assert cells.ids_by_key(session, image.id) == {"drawn-by-ada": named.id, other.key: other.id}
        assert cells.add_cell(session, add_image(session).id, "drawn-by-ada").id != named.id


def test_a_cell_lies_where_the_live_label_says(database: Database) -> None:
    with database.session() as session:
        image, pair = add_image(session), add_active_pair(session)
        add_prediction(session, image, pair, [LEFT])
        (cell,) = cells.cells_by_key(session, image.id).values()
        assert cells.places(session, image.id) == {cell.id: LEFT}
        say(session, cell, "ring", box=RIGHT, action="moved")
        assert cells.places(session, image.id) == {cell.id: RIGHT}
        say(session, cell, None, minute=1)  # rejected: back to where it was predicted
        assert cells.places(session, image.id) == {cell.id: LEFT}


def test_a_cell_only_an_expert_drew_and_deleted_keeps_its_place(database: Database) -> None:
    with database.session() as session:
        cell = add_cell(session, add_image(session))
        say(session, cell, "ring", box=RIGHT, action="added")
        say(session, cell, None, minute=1)
        assert cells.places(session, cell.image_id) == {cell.id: RIGHT}


def test_boxes_find_their_cells_by_key_then_by_place(database: Database) -> None:
    with database.session() as session:
        image = add_image(session)
        left, right = cells.resolve_cells(session, image.id, [LEFT, RIGHT])
        for cell, box in ((left, LEFT), (right, RIGHT)):
            say(session, cell, "ring", box=box, thread=f"ls:1:{cell.id}")
        far = (300.0, 300.0, 320.0, 320.0)
        found = cells.resolve_cells(session, image.id, [shifted(RIGHT, 1), shifted(LEFT, 1), far])
        assert found[:2] == [right, left]
        assert found[2].id not in (left.id, right.id)
        # the key claims the left cell from afar, so its place is taken and the second box is a new cell
        named = cells.resolve_cells(session, image.id, [RIGHT, LEFT], [left.key, None])
        assert named[0] is left
        assert named[1].id not in (left.id, right.id)
        assert cells.resolve_cells(session, image.id, [BOX], ["fresh"])[0].key == "fresh"
        assert cells.resolve_cells(session, image.id, []) == []


@pytest.mark.parametrize("keys", [["a"], ["a", "a"]])
def test_keys_must_fit_the_boxes(sqlite_database: Database, keys: list[str]) -> None:
    with sqlite_database.session() as session:
        image = add_image(session)
        with pytest.raises(RecordError, match="one key or None per box"):
            cells.resolve_cells(session, image.id, [LEFT, RIGHT], keys)


def test_one_cell_lies_where_all_of_its_images_cells_are_said_to(database: Database) -> None:
    with database.session() as session:
        image = add_image(session)
        add_prediction(session, image, add_active_pair(session), [LEFT, RIGHT])
        drawn, rejected, nowhere = *cells.cells_by_key(session, image.id).values(), add_cell(session, image)
        say(session, drawn, "ring", box=shifted(LEFT, 1))
        say(session, rejected, None, thread="ls:1:2")
        withdrawn = add_cell(session, image)
        say(session, withdrawn, "ring", thread="ls:1:3", box=BOX)
        say(session, withdrawn, None, thread="ls:1:3", action="withdrawn")
        known = cells.places(session, image.id)
        assert len(known) == 3
        assert {cell.id: cells.place_of(session, cell.id) for cell in (drawn, rejected, withdrawn)} == known
        assert cells.place_of(session, nowhere.id) is None
        with pytest.raises(NotFound, match="a cell with id"):
            cells.get(session, NOBODY)
