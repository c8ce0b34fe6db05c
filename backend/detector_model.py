"""torchvision's Mask R-CNN, changed where cells in a smear differ from objects in a photograph.

* One box per cell with its whole class distribution, instead of one box per class: rare stages share one box
  regression and one mask with the thousands of red cells, and "ring .5, trophozoite .4" stays visible.
* Regions where the truth is unknown (an expert wrote "difficult", a cell cut by the border) are nobody's negatives.
* The mask head runs only for the boxes whose masks are asked for, and masks are not pasted here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNN
from torchvision.models.detection.roi_heads import RoIHeads, project_masks_on_boxes
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import boxes as box_ops

from backend.box_overlap import pairwise_iou
from backend.cell_proposals import IGNORED, CellProposals
from backend.loss_samplers import SeededSampler, equal_shares
from backend.roi_pool import BagRoIAlign
from backend.suppress import soft_nms
from backend.unknown_truth import Target, TruthRules, unknown_truth

# Boxes that train the box head: one for each square of that side, and at least so many. References in torchvision and
# Detectron2 draw 512 from photographs of 800 x 1333 px, which is one for each square of 46 px.
SAMPLE_PX, LEAST_SAMPLES = 48, 64
MASK_SAMPLES = 6  # cells per image that train the mask head: round outlines are learned quickly, and it is slow


class Unresized(GeneralizedRCNNTransform):
    """Normalises and batches, but never resizes: images come at the detector's own size (see `resize_image`)."""

    def resize(self, image: Tensor, target: Target | None = None) -> tuple[Tensor, Target | None]:
        return image, target

    def postprocess(
        self, result: list[Target], image_shapes: list[tuple[int, int]], original_image_sizes: list[tuple[int, int]]
    ) -> list[Target]:
        return result


class CellHeads(RoIHeads):
    """Classifies proposals, refines one box each, and answers with one class distribution per cell.

    Detections per image: boxes (N, 4), probabilities (N, K) of the K classes (the rest to 1 is background),
    scores (N,) = 1 - background, and labels (N,) in 1..K. Masks are a step of their own: `mask_logits`.
    class_weights: (1 + K,) factors of the classifier's loss, background first; None: all 1.
    """

    rules = TruthRules()
    nms_sigma = 0.0
    class_weights: Tensor | None = None

    def forward(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: list[Target] | None = None,
    ) -> tuple[list[Target], dict[str, Tensor]]:
        if self.training:
            if targets is None:
                raise ValueError("training: expected targets with boxes, labels and masks, got None")
            return [], self._losses(features, proposals, image_shapes, targets)
        logits, deltas = self._classify(features, proposals, image_shapes)
        return self._detections(logits, deltas, proposals, image_shapes), {}

    def _classify(
        self, features: dict[str, Tensor], boxes: list[Tensor], sizes: list[tuple[int, int]]
    ) -> tuple[Tensor, Tensor]:
        """Logits (P, 1 + K), background first, and box deltas (P, 4), float32, for all boxes of all images."""
        pooled = self.box_head(self.box_roi_pool(features, boxes, sizes))
        logits, deltas = self.box_predictor(pooled)
        return logits.float(), deltas.float()

    def mask_logits(self, features: dict[str, Tensor], boxes: list[Tensor], sizes: list[tuple[int, int]]) -> Tensor:
        """(P, 28, 28) float32: one mask per box, whatever its class."""
        pooled = self.mask_head(self.mask_roi_pool(features, boxes, sizes))
        return self.mask_predictor(pooled).float()[:, 0]

    def _detections(
        self, logits: Tensor, deltas: Tensor, proposals: list[Tensor], sizes: list[tuple[int, int]]
    ) -> list[Target]:
        counts = [len(boxes) for boxes in proposals]
        decoded = self.box_coder.decode(deltas, proposals).reshape(-1, 4).split(counts)
        distributions = F.softmax(logits, dim=1).split(counts)
        detections = []
        for boxes, distribution, size in zip(decoded, distributions, sizes, strict=True):
            scores = 1.0 - distribution[:, 0]
            boxes = box_ops.clip_boxes_to_image(boxes, size)
            keep = torch.where((scores > self.score_thresh) & ((boxes[:, 2:] - boxes[:, :2]).amin(dim=1) > 1.0))[0]
            boxes, scores, distribution = boxes[keep], scores[keep], distribution[keep]
            keep, factors = self._suppressed(boxes, scores)
            probabilities = distribution[keep, 1:] * factors[:, None]
            detections.append(
                {
                    "boxes": boxes[keep],
                    "scores": scores[keep] * factors,
                    "probabilities": probabilities,
                    "labels": probabilities.argmax(dim=1) + 1,
                }
            )
        return detections

    def _suppressed(self, boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Indices of the boxes to keep, best first, and the factors of their scores."""
        if self.nms_sigma > 0:
            keep, factors = soft_nms(boxes, scores, self.nms_sigma, self.score_thresh)
        else:
            keep = box_ops.nms(boxes, scores, self.nms_thresh)
            factors = torch.ones_like(scores[keep])
        return keep[: self.detections_per_img], factors[: self.detections_per_img]

    def _losses(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        sizes: list[tuple[int, int]],
        targets: Sequence[Target],
    ) -> dict[str, Tensor]:
        self.fg_bg_sampler.take_seeds(targets)
        boxes, matched, labels = self._sample(proposals, sizes, targets)
        logits, deltas = self._classify(features, boxes, sizes)
        truth = torch.cat(labels)
        positive = truth > 0
        matched_boxes = [
            target["boxes"][index] if len(target["boxes"]) else part
            for target, index, part in zip(targets, matched, boxes, strict=True)
        ]
        wanted = torch.cat(self.box_coder.encode(matched_boxes, boxes))
        share = equal_shares([len(part) for part in labels], logits)
        weights = share if self.class_weights is None else share * self.class_weights.to(share)[truth]
        box_loss = F.smooth_l1_loss(deltas[positive], wanted[positive], beta=1 / 9, reduction="none")
        return {
            "loss_classifier": (F.cross_entropy(logits, truth, reduction="none") * weights).sum(),
            "loss_box_reg": (box_loss.sum(dim=1) * share[positive]).sum(),
            "loss_mask": self._mask_loss(features, boxes, matched, labels, sizes, targets),
        }

    def _sample(
        self, proposals: list[Tensor], sizes: list[tuple[int, int]], targets: Sequence[Target]
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Proposals to learn from, per image: boxes (S, 4), indices of their truth (S,), labels (S,), 0 = none."""
        truths = [target["boxes"].to(proposals[0]) for target in targets]
        candidates = self.add_gt_proposals([boxes.detach() for boxes in proposals], truths)
        matched, labels = self.assign_targets_to_proposals(candidates, truths, [target["labels"] for target in targets])
        for index, (boxes, target) in enumerate(zip(candidates, targets, strict=True)):
            unknown = unknown_truth(boxes, target, sizes[index], self.rules)
            labels[index] = torch.where(unknown & (labels[index] == 0), IGNORED, labels[index])
        self.fg_bg_sampler.counts = [max(LEAST_SAMPLES, height * width // SAMPLE_PX**2) for height, width in sizes]
        chosen = self.subsample(labels)
        return (
            [boxes[index] for boxes, index in zip(candidates, chosen, strict=True)],
            [indices[index] for indices, index in zip(matched, chosen, strict=True)],
            [values[index] for values, index in zip(labels, chosen, strict=True)],
        )

    def _mask_loss(
        self,
        features: dict[str, Tensor],
        boxes: list[Tensor],
        matched: list[Tensor],
        labels: list[Tensor],
        sizes: list[tuple[int, int]],
        targets: Sequence[Target],
    ) -> Tensor:
        positives, wanted = [], []
        for row, (part, indices, values, target) in enumerate(zip(boxes, matched, labels, targets, strict=True)):
            positive = torch.where(values > 0)[0]
            generator = self.fg_bg_sampler.generator(row, positive.device)
            drawn = torch.randperm(len(positive), device=positive.device, generator=generator)
            positive = positive[drawn[:MASK_SAMPLES]]
            positives.append(part[positive])
            if len(positive):
                # Only the masks drawn are made float: all of a crowded field's would be half a gigabyte.
                masks = target["masks"][indices[positive]].to(part)
                own = torch.arange(len(positive), device=positive.device)
                wanted.append(project_masks_on_boxes(masks, part[positive], own, 28))
        logits = self.mask_logits(features, positives, sizes)
        if not wanted:
            return logits.sum() * 0  # keeps the head in the graph, which distributed training needs
        share = equal_shares([len(part) for part in positives], logits)
        pixels = F.binary_cross_entropy_with_logits(logits, torch.cat(wanted), reduction="none")
        return (pixels.mean(dim=(1, 2)) * share).sum()


class CellPredictor(nn.Module):
    """Logits (P, 1 + K), background first, and one box refinement (P, 4) for all classes together."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.cls_score = nn.Linear(in_channels, num_classes)
        self.bbox_pred = nn.Linear(in_channels, 4)
        nn.init.normal_(self.cls_score.weight, std=0.01)
        nn.init.normal_(self.bbox_pred.weight, std=0.001)
        for layer in (self.cls_score, self.bbox_pred):
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.flatten(start_dim=1)
        return self.cls_score(x), self.bbox_pred(x)


class Parts(NamedTuple):
    """What differs between presets. levels: names of the feature maps that boxes and masks are pooled from."""

    backbone: nn.Module
    rpn_head: nn.Module
    box_head: nn.Module
    box_channels: int
    mask_head: nn.Module
    mask_predictor: nn.Module
    anchors: AnchorGenerator
    levels: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class Limits(NamedTuple):
    """How many boxes survive each stage. torchvision's own limits would cut fields of more than 100 cells short."""

    proposals: int
    detections: int
    score_threshold: float
    nms_iou: float
    nms_sigma: float


class CellMaskRCNN(MaskRCNN):
    """Mask R-CNN for cells. Takes images (3, h, w) float32 RGB in [0, 1] at the detector's own size.

    Training: `model(images, targets)` gives torchvision's dict of losses. A target holds boxes (N, 4) float32 xyxy px,
    labels (N,) int64 in 1..K, masks (N, h, w) uint8, and optionally ignore_boxes (M, 4). Evaluation: `model(images)`
    gives what `CellHeads` describes, at the size the images came in.
    """

    def __init__(self, parts: Parts, num_classes: int, limits: Limits, rules: TruthRules) -> None:
        pools = [BagRoIAlign(parts.levels, size, canonical_px=112) for size in (7, 14)]
        predictor = CellPredictor(parts.box_channels, num_classes + 1)
        super().__init__(
            parts.backbone,
            rpn_anchor_generator=parts.anchors,
            rpn_head=parts.rpn_head,
            box_roi_pool=pools[0],
            box_head=parts.box_head,
            box_predictor=predictor,
            mask_roi_pool=pools[1],
            mask_head=parts.mask_head,
            mask_predictor=parts.mask_predictor,
        )
        self.transform = Unresized(0, 0, list(parts.mean), list(parts.std))
        # Dozens of anchors sit on each cell: with as many before as after non-maximum suppression, the duplicates of
        # clear cells push out the others of a crowded field (measured: 70 of 216 cells lost, AP50 .83 instead of .87).
        # A training crop holds some 15 cells: half of torchvision's proposals teach as much.
        before = {"training": 1000, "testing": 4 * limits.proposals}
        after = {"training": 500, "testing": limits.proposals}
        self.rpn = CellProposals(parts.anchors, parts.rpn_head, 0.6, 0.3, 256, 0.5, before, after, 0.7)
        self.roi_heads = CellHeads(
            *(pools[0], parts.box_head, predictor, 0.5, 0.5, LEAST_SAMPLES, 0.25, None),
            *(limits.score_threshold, limits.nms_iou, limits.detections),
            *(pools[1], parts.mask_head, parts.mask_predictor),
        )
        self.roi_heads.nms_sigma = limits.nms_sigma
        self.rpn.rules = self.roi_heads.rules = rules
        self.rpn.box_similarity = self.roi_heads.box_similarity = pairwise_iou
        for part in (self.rpn, self.roi_heads):
            drawn = part.fg_bg_sampler
            part.fg_bg_sampler = SeededSampler(drawn.batch_size_per_image, drawn.positive_fraction)

    def losses_from_levels(
        self,
        levels: Sequence[Tensor],
        batch_size_px: tuple[int, int],
        sizes: list[tuple[int, int]],
        targets: list[Target],
    ) -> dict[str, Tensor]:
        """The losses of `model(images, targets)` from what the trunk made of the images, without running the trunk.

        levels: `backbone.trunk_levels` of the batch, (B, C, h, w) each. batch_size_px: (h, w) of the padded batch.
        sizes: (h, w) px of each image in it.
        """
        features = self.backbone.features_of(levels)
        batch = ImageList(levels[0].new_empty(1).expand(len(sizes), 3, *batch_size_px), sizes)  # only its shape is read
        proposals, proposal_losses = self.rpn(batch, features, targets)
        _, losses = self.roi_heads(features, proposals, sizes, targets)
        return {**losses, **proposal_losses}
