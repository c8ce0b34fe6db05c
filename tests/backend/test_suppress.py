import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from backend.suppress import soft_nms


def boxes_of(*rows: tuple[float, float, float, float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float32)


def test_an_overlapping_cell_is_kept_with_a_lower_score() -> None:
    boxes = boxes_of((0, 0, 100, 100), (30, 0, 130, 100), (300, 0, 400, 100))  # IoU of the first two: 70 / 130
    keep, factors = soft_nms(boxes, torch.tensor([0.9, 0.8, 0.7]), sigma=0.5, floor=0.05)
    assert keep.tolist() == [0, 2, 1]
    assert factors.tolist() == pytest.approx([1.0, 1.0, np.exp(-((70 / 130) ** 2) / 0.5)])


def test_duplicates_and_what_falls_below_the_floor_are_gone() -> None:
    boxes = boxes_of((0, 0, 100, 100), (1, 0, 101, 100), (10, 0, 110, 100))
    keep, _ = soft_nms(boxes, torch.tensor([0.9, 0.8, 0.2]), sigma=0.5, floor=0.06)
    assert keep.tolist() == [0]


def test_nothing_comes_of_nothing() -> None:
    keep, factors = soft_nms(torch.zeros(0, 4), torch.zeros(0), sigma=0.5, floor=0.05)
    assert keep.shape == factors.shape == (0,)


@given(st.integers(0, 10**6), st.integers(1, 30))
def test_scores_only_fall_and_come_out_in_order(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 200, (count, 2))
    boxes = torch.tensor(np.hstack([corners, corners + rng.uniform(10, 80, (count, 2))]), dtype=torch.float32)
    scores = torch.tensor(rng.uniform(0, 1, count), dtype=torch.float32)
    keep, factors = soft_nms(boxes, scores, sigma=0.5, floor=0.05)
    lowered = scores[keep] * factors
    assert len(set(keep.tolist())) == len(keep)
    assert (factors > 0).all()
    assert (factors <= 1).all()
    assert (lowered.diff() <= 1e-6).all()
    assert (lowered > 0.05 - 1e-6).all()
    surest = scores.argmax()
    assert scores[surest] <= 0.05 or keep[0] == surest
