"""The cells of a simulation: what a detector proposes in each image, described by numbers that no label went into.

Features of one image are computed once and kept, by weights and image. They are told relative to the image's other
cells, of which nearly all are healthy: what remains is how a cell differs from its neighbours, whatever the stain.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import roi_align

from al_loop.dataset import LabelledImage
from backend.backbones import LiteBackbone
from backend.detect import Detector, load_detector, resize_image
from backend.images import read_image
from backend.look import TrunkMaps
from backend.store import replace_atomically, sha256_of

Report = Callable[[int, int, str], None]  # done, total, a word on what is being done

VERSION = 1  # of the features: another number, and cached ones are computed again
SCORE_FLOOR = 0.05  # a proposal less probable than this is no cell of the pool
NMS_IOU = 0.45  # one proposal for a cell: an expert reviews cells, not boxes
PATCH = 24  # px a side, for the colours of a cell
QUANTILES = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)
GRID = 7  # bins a side that the trunk's maps are pooled to, before mean and maximum


@dataclass(frozen=True)
class Proposals:
    """N proposals of one image. boxes: (N, 4) float32 xyxy px. probabilities: (N, len(CLASSES)) float32, by the
    detector; what is missing to 1 is "no cell". features: (N, D) float32, relative to the image's median cell.
    """

    boxes: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    features: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.boxes)


class Describer:
    """A detector, and the trunk as ImageNet left it, which describes what the detector proposes."""

    def __init__(self, weights: Path, device: torch.device | str = "cpu") -> None:
        self.sha256 = sha256_of(weights)
        self.detector: Detector = load_detector(weights, None, device)
        self.detector.model.roi_heads.score_thresh = SCORE_FLOOR
        self.detector.model.roi_heads.nms_thresh = NMS_IOU
        self.detector.model.roi_heads.nms_sigma = 0.0
        self.trunk = LiteBackbone(8, pretrained=True).to(device).eval()
        self.front = self.trunk.frozen_front()

    def propose(self, image: NDArray[np.uint8]) -> Proposals:
        """What there may be in image (h, w, 3) uint8 RGB."""
        sight = self.detector.look(image)
        cells, maps = sight.cells, sight.trunk
        if not len(cells) or maps is None:
            return Proposals(cells.boxes, cells.probabilities, np.zeros((0, 0), dtype=np.float32))
        small = resize_image(image, self.detector.config)
        scale = np.array([small.shape[1] / image.shape[1], small.shape[0] / image.shape[0]] * 2, dtype=np.float32)
        corners = cells.boxes * scale
        boxes = torch.from_numpy(corners).to(self.detector.device)
        with torch.inference_mode():
            parts = [self._imagenet(small, maps.padded, boxes), self._head(maps, boxes)]
        described = [part.float().cpu().numpy() for part in parts]
        features = np.concatenate([*described, colours(small, corners)], axis=1)
        return Proposals(cells.boxes, cells.probabilities, relative(features))

    def _imagenet(self, small: NDArray[np.uint8], padded: tuple[int, int], boxes: Tensor) -> Tensor:
        """Mean and maximum over each box of ImageNet's maps at strides 4, 8 and 16."""
        pixels = torch.zeros((1, 3, *padded), device=boxes.device)
        shown = torch.from_numpy(np.ascontiguousarray(small)).to(pixels).permute(2, 0, 1)
        pixels[0, :, : small.shape[0], : small.shape[1]] = shown / 127.5 - 1
        found = []
        for level in (self.front(pixels), *self.trunk.trunk_levels(pixels)[:2]):
            pooled = roi_align(level, [boxes], GRID, level.shape[2] / padded[0], sampling_ratio=2)
            found += [pooled.mean(dim=(2, 3)), pooled.amax(dim=(2, 3))]
        return torch.cat(found, dim=1)

    def _head(self, maps: TrunkMaps, boxes: Tensor) -> Tensor:
        """What the detector's box head makes of each box: what its predictor classifies."""
        model = self.detector.model
        pooled = model.roi_heads.box_roi_pool(model.backbone.features_of(maps.levels), [boxes], maps.sizes)
        found: Tensor = model.roi_heads.box_head(pooled)
        return found


def colours(image: NDArray[np.uint8], boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, 30) float32: quantiles of optical density per channel within the ellipse of each box, darkness of blue
    against green (chromatin is purple), spread, and the box's size and shape as logarithms.
    """
    y, x = (np.mgrid[:PATCH, :PATCH] + 0.5) / PATCH * 2 - 1
    inside = x**2 + y**2 <= 0.9
    density = -np.log((image.astype(np.float32) + 1) / 256)
    rows = []
    for x1, y1, x2, y2 in boxes:
        centre, size = ((x1 + x2) / 2, (y1 + y2) / 2), (max(2, round(x2 - x1)), max(2, round(y2 - y1)))
        patch = cv2.resize(cv2.getRectSubPix(density, size, centre), (PATCH, PATCH), interpolation=cv2.INTER_AREA)
        pixels = patch[inside]
        purple = pixels[:, 1] - pixels[:, 2]
        levels = [np.quantile(values, QUANTILES) for values in (*pixels.T, purple)]
        shape = [np.log((x2 - x1) * (y2 - y1)), abs(np.log((x2 - x1) / (y2 - y1)))]
        rows.append(np.concatenate([*levels, shape]))
    return np.asarray(rows, dtype=np.float32).reshape(len(boxes), -1)


def relative(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Features (N, D) minus those of the median cell of the image."""
    return features - np.median(features, axis=0) if len(features) else features


def propose_all(
    images: Sequence[LabelledImage], weights: Path, cache: Path, report: Report, device: str = "cpu"
) -> list[Proposals]:
    """The proposals of each image, from `cache` where they are."""
    describer: Describer | None = None
    folder = cache / f"proposals-{sha256_of(weights)[:12]}-v{VERSION}"
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for done, image in enumerate(images, start=1):
        path = folder / f"{image.sha256}.npz"
        if not path.exists():
            describer = describer or Describer(weights, device)
            _keep(path, describer.propose(read_image(Path(image.file))))
        with np.load(path) as stored:
            found.append(Proposals(stored["boxes"], stored["probabilities"], stored["features"].astype(np.float32)))
        report(done, len(images), "looking at images")
    return found


def _keep(path: Path, proposals: Proposals) -> None:
    buffer = io.BytesIO()
    features = proposals.features.astype(np.float16)
    np.savez(buffer, boxes=proposals.boxes, probabilities=proposals.probabilities, features=features)
    replace_atomically(path, (buffer.getvalue(),))
