"""Which of many overlapping boxes are one cell, and which are two cells that overlap.

Red cells lie on each other: in BBBC041's crowded fields, one true box in eight overlaps another by more than half, and
plain non-maximum suppression at IoU 0.5 can only lose it. Soft-NMS (Bodla et al., arXiv 1704.04503) lowers the score of
a box by how much it overlaps surer ones instead of removing it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import box_iou, nms

DUPLICATE_IOU = 0.9  # nothing is that close to another cell: removed at once, which leaves few boxes to go through


def soft_nms(boxes: Tensor, scores: Tensor, sigma: float, floor: float) -> tuple[Tensor, Tensor]:
    """Gaussian soft-NMS of boxes (N, 4) xyxy px with scores (N,) in [0, 1].

    Returns the indices (K,) of the boxes whose lowered score is above `floor`, best first, and the factor (K,) by
    which each score is lowered: the product of exp(-IoU² / sigma) over the surer boxes. Runs on the CPU.
    """
    candidates = nms(boxes, scores, DUPLICATE_IOU)
    overlap = box_iou(boxes[candidates], boxes[candidates]).cpu().double()
    raw = scores[candidates].cpu().double().numpy()
    decay = torch.exp(-(overlap**2) / sigma).numpy()
    left, order, factors = raw.copy(), [], []
    for _ in range(len(raw)):
        best = int(left.argmax())
        if left[best] <= floor:
            break
        order.append(best)
        factors.append(left[best] / raw[best])
        left *= decay[best]
        left[best] = 0.0  # taken: stays 0, whatever it is multiplied with
    kept = torch.tensor(order, dtype=torch.int64, device=candidates.device)
    return candidates[kept], torch.tensor(factors, dtype=scores.dtype, device=scores.device)
