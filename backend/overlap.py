"""How much boxes overlap, and which belong together. Boxes are xyxy in px; empty inputs give empty answers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment


def _intersection(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    sides = np.clip(high - low, 0.0, None)
    return sides[..., 0] * sides[..., 1]


def _as_boxes(boxes: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(boxes, dtype=np.float64).reshape(-1, 4)


def box_areas(boxes: NDArray[Any]) -> NDArray[np.float64]:
    """Areas (N,) float64 in px² of boxes (N, 4) xyxy; a box turned inside out has area 0."""
    sides = np.clip(_as_boxes(boxes)[:, 2:] - _as_boxes(boxes)[:, :2], 0.0, None)
    return sides[:, 0] * sides[:, 1]


def iou_matrix(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float32]:
    """Intersection over union of boxes a (N, 4) and b (M, 4): (N, M) float32 in [0, 1]; 0 where both areas are 0."""
    a, b = _as_boxes(a), _as_boxes(b)
    inter = _intersection(a, b)
    union = box_areas(a)[:, None] + box_areas(b)[None, :] - inter
    return np.divide(inter, union, out=np.zeros_like(inter), where=union > 0).astype(np.float32)


def intersection_over_area(boxes: NDArray[Any], regions: NDArray[Any]) -> NDArray[np.float32]:
    """Share of each box (N, 4) that lies in each region (M, 4): (N, M) float32 in [0, 1]. Not symmetric."""
    boxes, regions = _as_boxes(boxes), _as_boxes(regions)
    inter = _intersection(boxes, regions)
    area = np.broadcast_to(box_areas(boxes)[:, None], inter.shape)
    return np.divide(inter, area, out=np.zeros_like(inter), where=area > 0).astype(np.float32)


def match_one_to_one(
    iou: NDArray[Any], threshold: float, scores: tuple[NDArray[Any], NDArray[Any]] | None = None
) -> list[tuple[int, int]]:
    """Pairs (i, j), each index used once, whose IoU reaches `threshold`, with the largest possible sum of IoU.

    iou: (N, M). scores: (N,) and (M,), how sure the boxes are; they then weigh the sum, so that of two boxes on one
    cell the surer is matched and not the one that happens to fit a little better. Optimal (Hungarian) rather than
    greedy: in a crowd a greedy choice can leave two cells alone that have a perfectly good partner each. Sorted by i.
    Pairs below the threshold never buy a better sum elsewhere.
    """
    if iou.size == 0:
        return []
    worth = iou if scores is None else iou * np.outer(scores[0], scores[1])
    allowed = np.where(iou >= threshold, worth, 0.0)
    rows, columns = linear_sum_assignment(allowed, maximize=True)
    return [(int(i), int(j)) for i, j in zip(rows, columns, strict=True) if iou[i, j] >= threshold]
