"""The plain torchvision way of doing what a detector of ours does, to be measured beside it.

torchvision's own `MaskRCNN`: its transform, proposals, heads and full-size mask pasting, put together from the same
preset and filled with the same weights. A box refinement and a mask that ours gives once per cell are repeated for
each class, so both find the same cells.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNN, MaskRCNNPredictor
from torchvision.ops import MultiScaleRoIAlign, nms

from backend.detect import DetectorConfig, resize_image
from backend.detector_model import Parts
from backend.instances import CLASS_INDEX, CLASSES, Instances, Rle, role_classes
from backend.masks import encode
from backend.presets import PRESETS
from backend.suppress import soft_nms

PER_CLASS = ("roi_heads.box_predictor.bbox_pred.", "roi_heads.mask_predictor.mask_fcn_logits.")


def torchvision_mask_rcnn(config: DetectorConfig, pretrained: bool = False) -> MaskRCNN:
    """torchvision's Mask R-CNN with the parts, sizes, thresholds and limits of this configuration."""
    parts: Parts = PRESETS[config.preset](pretrained)
    outputs = len(role_classes(config.role)) + 1
    pools = [MultiScaleRoIAlign(list(parts.levels), size, sampling_ratio=2, canonical_scale=112) for size in (7, 14)]
    conv: Any = parts.mask_predictor
    return MaskRCNN(
        parts.backbone,
        min_size=config.short_side,
        max_size=config.max_side,
        image_mean=list(parts.mean),
        image_std=list(parts.std),
        rpn_anchor_generator=parts.anchors,
        rpn_head=parts.rpn_head,
        rpn_pre_nms_top_n_test=4 * config.proposals,
        rpn_post_nms_top_n_test=config.proposals,
        box_roi_pool=pools[0],
        box_head=parts.box_head,
        box_predictor=FastRCNNPredictor(parts.box_channels, outputs),
        box_score_thresh=config.score_threshold,
        box_nms_thresh=config.nms_iou,
        box_detections_per_img=config.detections_per_image,
        mask_roi_pool=pools[1],
        mask_head=parts.mask_head,
        mask_predictor=MaskRCNNPredictor(conv.conv5_mask.in_channels, conv.conv5_mask.out_channels, outputs),
    )


def with_weights(config: DetectorConfig, state: Mapping[str, Tensor], device: torch.device | str) -> MaskRCNN:
    """The same, filled with the weights of a detector's file (unfolded, as stored), in evaluation mode."""
    model = torchvision_mask_rcnn(config)
    outputs = len(role_classes(config.role)) + 1
    repeated = {
        name: value.repeat(outputs, *[1] * (value.ndim - 1)) if name.startswith(PER_CLASS) else value
        for name, value in state.items()
    }
    model.load_state_dict(repeated, strict=True)
    return model.to(device).eval()


@torch.inference_mode()
def detect_plainly(model: MaskRCNN, image: NDArray[np.uint8]) -> tuple[dict[str, NDArray[Any]], list[Rle]]:
    """What torchvision answers for image (h, w, 3) uint8 RGB, and its full-size masks as RLE, one by one."""
    device = next(model.parameters()).device
    tensor = torch.from_numpy(image).to(device).permute(2, 0, 1).float() / 255
    answer = model([tensor])[0]
    masks = (answer.pop("masks")[:, 0] >= 0.5).cpu().numpy()
    return {name: value.cpu().numpy() for name, value in answer.items()}, [encode(mask) for mask in masks]


def cells_of_same_pixels(model: MaskRCNN, image: NDArray[np.uint8], config: DetectorConfig) -> Instances:
    """The cells torchvision's model finds in the very pixels our detector sees, suppressed as ours are.

    The field is shrunk by `resize_image`, for torchvision's way skips pixels. What is left between these cells and ours
    is what our short cuts cost. No mask is made.
    """
    small = resize_image(image, config)
    heads: Any = model.roi_heads
    usual = (heads.nms_thresh, heads.detections_per_img, heads.mask_roi_pool)
    heads.nms_thresh, heads.detections_per_img, heads.mask_roi_pool = 1.0, 10**6, None
    try:
        with torch.inference_mode():
            tensor = torch.from_numpy(small).to(next(model.parameters()).device).permute(2, 0, 1).float() / 255
            found = {name: value.cpu().numpy() for name, value in model([tensor])[0].items()}
    finally:
        heads.nms_thresh, heads.detections_per_img, heads.mask_roi_pool = usual
    boxes, probabilities = _distributions(found, config)
    keep, factors = _suppressed(boxes, probabilities, config)
    height, width = image.shape[:2]
    scale = np.array([width / small.shape[1], height / small.shape[0]] * 2, dtype=np.float32)
    limits = np.array([width, height] * 2, dtype=np.float32)
    return _instances(np.clip(boxes[keep] * scale, 0, limits), probabilities[keep] * factors[:, None], (height, width))


def one_per_cell(answer: Mapping[str, NDArray[Any]], config: DetectorConfig, size: tuple[int, int]) -> Instances:
    """torchvision's own answer, one box per class, as one box per cell with its distribution, so that it can be fused.

    A cell's classes share one box there, as the refinement is the same for all; the sum of their probabilities is
    P(there is a cell).
    """
    boxes, probabilities = _distributions(answer, config)
    scores = torch.from_numpy(probabilities.sum(axis=1))
    kept = nms(torch.from_numpy(boxes), scores, config.nms_iou).numpy()
    return _instances(boxes[kept], probabilities[kept], size)


def _distributions(
    answer: Mapping[str, NDArray[Any]], config: DetectorConfig
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    columns = np.array([CLASS_INDEX[name] for name in role_classes(config.role)])
    boxes, which = np.unique(answer["boxes"], axis=0, return_inverse=True)
    probabilities = np.zeros((len(boxes), len(CLASSES)), dtype=np.float32)
    probabilities[which.reshape(-1), columns[answer["labels"] - 1]] = answer["scores"]
    return boxes, probabilities


def _suppressed(
    boxes: NDArray[np.float32], probabilities: NDArray[np.float32], config: DetectorConfig
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    corners, scores = torch.from_numpy(boxes), torch.from_numpy(probabilities.sum(axis=1))
    if config.nms_sigma > 0:
        keep, factors = soft_nms(corners, scores, config.nms_sigma, config.score_threshold)
    else:
        keep = nms(corners, scores, config.nms_iou)
        factors = torch.ones(len(keep))
    most = config.detections_per_image
    return keep[:most].numpy(), factors[:most].numpy()


def _instances(boxes: NDArray[Any], probabilities: NDArray[np.float32], size: tuple[int, int]) -> Instances:
    return Instances(
        image_size=size,
        boxes=boxes.astype(np.float32),
        labels=probabilities.argmax(axis=1).astype(np.int64),
        scores=np.clip(probabilities.sum(axis=1), 0, 1),
        probabilities=probabilities,
    )
