"""torchvision's region proposals, which learn nothing where the truth is unknown, and from each image alike."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork

from backend.loss_samplers import equal_shares
from backend.unknown_truth import Target, TruthRules, unknown_truth

IGNORED = -1  # torchvision's samplers draw neither positives nor negatives from this label


class CellProposals(RegionProposalNetwork):
    """Region proposals that do not learn "no cell" where the truth is unknown."""

    rules = TruthRules()

    def forward(
        self, images: ImageList, features: dict[str, Tensor], targets: list[Target] | None = None
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        if targets is not None:
            pairs = zip(targets, images.image_sizes, strict=True)
            targets = [target | {"size": torch.tensor(size)} for target, size in pairs]
            self.fg_bg_sampler.take_seeds(targets)
        return super().forward(images, features, targets)

    def assign_targets_to_anchors(
        self, anchors: list[Tensor], targets: list[Target]
    ) -> tuple[list[Tensor], list[Tensor]]:
        labels, matched = super().assign_targets_to_anchors(anchors, targets)
        for index, (boxes, target) in enumerate(zip(anchors, targets, strict=True)):
            size = (int(target["size"][0]), int(target["size"][1]))
            unknown = unknown_truth(boxes, target, size, self.rules)
            labels[index] = torch.where(unknown & (labels[index] == 0), float(IGNORED), labels[index])
        return labels, matched

    def compute_loss(
        self, objectness: Tensor, pred_bbox_deltas: Tensor, labels: list[Tensor], regression_targets: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """torchvision's losses, as the mean over images of each image's own mean."""
        positives, negatives = self.fg_bg_sampler(labels)
        drawn = [torch.where(p | n)[0] for p, n in zip(positives, negatives, strict=True)]
        share = equal_shares([len(part) for part in drawn], objectness)
        offsets = np.cumsum([0, *(len(part) for part in labels[:-1])])
        chosen = torch.cat([part + int(offset) for part, offset in zip(drawn, offsets, strict=True)])
        truth, wanted = torch.cat(labels)[chosen], torch.cat(regression_targets)[chosen]
        positive = truth > 0
        box = F.smooth_l1_loss(pred_bbox_deltas[chosen][positive], wanted[positive], beta=1 / 9, reduction="none")
        found = F.binary_cross_entropy_with_logits(objectness.flatten()[chosen], truth, share, reduction="sum")
        return found, (box.sum(dim=1) * share[positive]).sum()
