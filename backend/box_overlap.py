"""How much boxes overlap, for the tens of thousands of anchors a training step compares with every true cell.

torchvision's `box_iou` gives the same numbers; it works on pairs of coordinates, and so without vector instructions.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import box_area


def intersections(a: Tensor, b: Tensor) -> Tensor:
    """(N, M) areas in px² that boxes a (N, 4) share with boxes b (M, 4), xyxy px."""
    left, top, right, bottom = (side.contiguous()[:, None] for side in a.unbind(1))
    x1, y1, x2, y2 = (side.contiguous()[None, :] for side in b.unbind(1))
    width = torch.minimum(right, x2).sub_(torch.maximum(left, x1)).clamp_(min=0)
    height = torch.minimum(bottom, y2).sub_(torch.maximum(top, y1)).clamp_(min=0)
    return width.mul_(height)


def pairwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """(N, M) intersection over union of boxes a (N, 4) and b (M, 4), xyxy px."""
    shared = intersections(a, b)
    return shared / (box_area(a)[:, None] + box_area(b)[None, :] - shared)
