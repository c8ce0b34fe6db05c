import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.overlap import box_areas, intersection_over_area, iou_matrix, match_one_to_one

coordinate = st.floats(0, 500, allow_nan=False, width=32)
side = st.floats(1, 200, allow_nan=False, width=32)
box = st.tuples(coordinate, coordinate, side, side).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))
boxes = st.lists(box, max_size=8).map(lambda rows: np.array(rows, dtype=np.float32).reshape(-1, 4))


@given(boxes, boxes)
def test_iou_is_symmetric_bounded_and_one_on_itself(a: np.ndarray, b: np.ndarray) -> None:
    iou = iou_matrix(a, b)
    assert iou.shape == (len(a), len(b))
    assert iou.dtype == np.float32
    assert (iou >= 0).all()
    assert (iou <= 1 + 1e-6).all()
    np.testing.assert_allclose(iou, iou_matrix(b, a).T)
    np.testing.assert_allclose(np.diag(iou_matrix(a, a)), 1, rtol=1e-5)


@given(boxes, boxes, st.floats(-100, 100, width=32))
def test_iou_does_not_depend_on_where_the_origin_is(a: np.ndarray, b: np.ndarray, shift: float) -> None:
    np.testing.assert_allclose(iou_matrix(a + shift, b + shift), iou_matrix(a, b), atol=1e-3)


def test_iou_of_known_boxes() -> None:
    a = np.array([[0, 0, 10, 10]])
    b = np.array([[5, 0, 15, 10], [10, 0, 20, 10], [0, 0, 5, 10]])
    np.testing.assert_allclose(iou_matrix(a, b), [[1 / 3, 0, 0.5]], rtol=1e-6)
    np.testing.assert_allclose(intersection_over_area(a, b), [[0.5, 0, 0.5]])
    np.testing.assert_allclose(intersection_over_area(b, a), [[0.5], [0], [1]])
    np.testing.assert_allclose(box_areas(np.array([[0, 0, 4, 5], [3, 3, 1, 1]])), [20, 0])


def test_degenerate_and_empty_boxes_give_zeros_not_nan() -> None:
    assert iou_matrix(np.zeros((2, 4)), np.zeros((1, 4))).tolist() == [[0], [0]]
    assert iou_matrix(np.zeros((0, 4)), np.zeros((3, 4))).shape == (0, 3)
    assert intersection_over_area(np.zeros((1, 4)), np.ones((1, 4))).tolist() == [[0]]


def test_matching_is_optimal_where_greedy_is_not() -> None:
    # Greedy takes (0, 0) at .9 and leaves row 1 alone; together (0, 1) and (1, 0) are better.
    iou = np.array([[0.9, 0.8], [0.7, 0.1]])
    assert match_one_to_one(iou, 0.5) == [(0, 1), (1, 0)]


@settings(max_examples=50)
@given(boxes, boxes, st.floats(0.1, 0.9))
def test_matching_uses_each_box_once_and_respects_the_threshold(a: np.ndarray, b: np.ndarray, threshold: float) -> None:
    iou = iou_matrix(a, b)
    pairs = match_one_to_one(iou, threshold)
    assert all(iou[i, j] >= threshold for i, j in pairs)
    assert len({i for i, _ in pairs}) == len({j for _, j in pairs}) == len(pairs)
    # Nothing that could still be paired is left over.
    left = [i for i in range(len(a)) if i not in {p for p, _ in pairs}]
    right = [j for j in range(len(b)) if j not in {q for _, q in pairs}]
    assert not any(iou[i, j] >= threshold for i in left for j in right)


@given(boxes)
def test_a_set_matches_itself_completely(a: np.ndarray) -> None:
    assert len(match_one_to_one(iou_matrix(a, a), 0.5)) == len(a)


def test_nothing_to_match() -> None:
    assert match_one_to_one(np.zeros((0, 3)), 0.5) == []
    two_on_one = np.array([[0.8], [0.9]])
    assert match_one_to_one(two_on_one, 0.5) == [(1, 0)]
    assert match_one_to_one(two_on_one, 0.5, (np.array([0.9, 0.3]), np.array([1.0]))) == [(0, 0)]  # the surer
    with pytest.raises(ValueError, match="2"):
        match_one_to_one(np.zeros(3), 0.5)
