"""The stages of looking at images with a trained detector, apart, so that two detectors can share the first.

torchvision's own forward pass does the same in one piece, with copies of every image and masks for every box.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.models.detection.image_list import ImageList

from backend.detector_model import CellMaskRCNN
from backend.instances import Instances, Rle
from backend.roi_pool import BagRoIAlign

MASKS_AT_A_TIME = {"cpu": 16}  # so many stay in a processor's cache from layer to layer
DIVISOR = 32  # sides of a batch are padded to its multiples: the coarsest stride
MIDDLE = (
    5 / 7
)  # of each side of a box: what lies there tells cells apart better than the whole box (`backend/embed.py`)
MIDDLE_STRIDE = 8  # px: all cells are described from one level, or similar ones of two sizes would not be comparable


class TrunkMaps(NamedTuple):
    """What a trunk made of a batch of images.

    levels: (B, C, h, w) each, finest first. padded: (h, w) px of the batch. sizes: (h, w) px of each image in it.
    """

    levels: list[Tensor]
    padded: tuple[int, int]
    sizes: list[tuple[int, int]]


@dataclass(frozen=True)
class Sight:
    """One detector's view of one image.

    cells: what it found, without masks. For any boxes (N, 4) float32 xyxy px of the image, read from this detector's
    features: masks, the mask of each (only then does its mask head run), and embeddings, what each looks like, (N,
    EMBEDDING_SIZE) float32 of unit length (`backend/embed.py`). eyes: what the trunk's maps depend on beside the image,
    None when unknown. trunk: those maps, for another detector with the same eyes.
    """

    cells: Instances
    masks: Callable[[NDArray[np.float32]], list[Rle]]
    embeddings: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    eyes: tuple[Any, ...] | None = None
    trunk: TrunkMaps | None = None


def prefers_bf16(device: torch.device) -> bool:
    """Whether bfloat16 pays here: on GPUs that compute in it, and on CPUs with matrix units (AMX).

    On CPUs with AVX512-BF16 alone it does not: as many products per cycle as float32, and slower convolutions.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return device.type == "cpu" and torch.cpu._is_amx_tile_supported()


def run_trunk(model: CellMaskRCNN, images: Sequence[NDArray[np.uint8]], device: torch.device) -> TrunkMaps:
    """Normalise, batch and run the trunk. images: (h, w, 3) uint8 RGB at the detector's size."""
    sizes = [(image.shape[0], image.shape[1]) for image in images]
    height, width = (-(-max(side) // DIVISOR) * DIVISOR for side in zip(*sizes, strict=True))
    mean, std = (torch.tensor(values, device=device) * 255 for values in _statistics(model))
    batch = torch.zeros((len(images), height, width, 3), device=device)
    for row, image in zip(batch, images, strict=True):
        pixels = torch.from_numpy(np.ascontiguousarray(image)).to(device)
        torch.sub(pixels, mean, out=row[: image.shape[0], : image.shape[1]]).div_(std)
    return TrunkMaps(model.backbone.trunk_levels(batch.permute(0, 3, 1, 2)), (height, width), sizes)


def _statistics(model: CellMaskRCNN) -> tuple[list[float], list[float]]:
    return list(model.transform.image_mean), list(model.transform.image_std)


def find_cells(model: CellMaskRCNN, trunk: TrunkMaps) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
    """The pyramid's features, and per image the detections that `CellHeads` describes, without masks."""
    features = model.backbone.features_of(trunk.levels)
    # Of the batch, proposals read only the shape.
    batch = ImageList(trunk.levels[0].new_empty(1).expand(len(trunk.sizes), 3, *trunk.padded), trunk.sizes)
    proposals, _ = model.rpn(batch, features)
    detections, _ = model.roi_heads(features, proposals, trunk.sizes)
    return features, detections


def mask_probabilities(
    model: CellMaskRCNN, features: dict[str, Tensor], boxes: Tensor, size: tuple[int, int]
) -> NDArray[np.float32]:
    """(N, 28, 28) float32 in [0, 1] for boxes (N, 4) px of the one image of `size` (h, w) that features stem from."""
    step = MASKS_AT_A_TIME.get(boxes.device.type, len(boxes))
    parts = [model.roi_heads.mask_logits(features, [part], [size]) for part in boxes.split(max(step, 1))]
    return torch.cat(parts).sigmoid().cpu().numpy()


def middle_features(features: dict[str, Tensor], boxes: Tensor, size: tuple[int, int]) -> NDArray[np.float32]:
    """(N, C) float32: the mean of the pyramid's features over the middle of each box.

    boxes: (N, 4) px of the one image of `size` (h, w) that the features stem from.
    """
    strides = {name: size[0] / level.shape[2] for name, level in features.items()}
    level = min(strides, key=lambda name: abs(np.log2(strides[name] / MIDDLE_STRIDE)))
    shrink = (boxes[:, 2:] - boxes[:, :2]) * (1 - MIDDLE) / 2
    middles = torch.cat([boxes[:, :2] + shrink, boxes[:, 2:] - shrink], dim=1)
    pooled = BagRoIAlign((level,), 3, canonical_px=112)(features, [middles], [size])
    return pooled.float().mean(dim=(2, 3)).cpu().numpy()
