"""Where an image's truth is silent: a detector must not learn "no cell" there.

An expert could not decide ("difficult"), or a cell is cut by the edge: of some 20 such cells in a BBBC041 field, fewer
than 2 are labelled.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import box_area

from backend.box_overlap import intersections

Target = dict[str, Tensor]

LARGEST_CELL_PX = 112.0  # at short side 640, 99.5 % of all cells measured are smaller


class TruthRules(NamedTuple):
    """Where "no label" does not mean "no cell". border: px from the edge of the image; negative: nowhere."""

    ignore_share: float = 0.5
    border: float = 2.0


def unknown_truth(boxes: Tensor, target: Target, size: tuple[int, int], rules: TruthRules) -> Tensor:
    """(N,) bool: boxes (N, 4) px of which nobody can say that there is no cell, in an image of `size` (h, w).

    Either one of the target's "ignore_boxes" (M, 4) covers `rules.ignore_share` of the box or has IoU 0.3 with it; or
    the box is where a cell cut by the edge may be, for those are mostly unlabelled: within `rules.border` px of the
    edge, no larger than a cell, and not just a bad cut-out of a labelled cell.
    """
    height, width = size
    x1, y1, x2, y2 = boxes.unbind(1)
    at_edge = torch.minimum(torch.minimum(x1, width - x2), torch.minimum(y1, height - y2)) <= rules.border
    unknown = at_edge & (torch.maximum(x2 - x1, y2 - y1) <= LARGEST_CELL_PX)
    truths = target["boxes"].to(boxes)
    if len(truths):
        few = torch.where(unknown)[0]  # of tens of thousands of anchors
        shares = intersections(boxes[few], truths) / box_area(truths).clamp(min=1e-6)
        unknown[few] = (shares < 0.25).all(dim=1)
    ignore = target.get("ignore_boxes")
    if ignore is not None and len(ignore):
        ignore = ignore.to(boxes)
        inter = intersections(boxes, ignore)
        areas = box_area(boxes)[:, None].clamp(min=1e-6)
        similar = inter >= 0.3 * (areas + box_area(ignore)[None, :] - inter)
        unknown |= ((inter >= rules.ignore_share * areas) | similar).any(dim=1)
    return unknown
