"""What a frozen trunk makes of training crops, kept on disk: later trainings on the same trunk need not run it again.

Crops then come from a finite set of views. Each rare cell has some of its own, and so has each point of a coarse grid
over the field; a view's zoom, shift, orientation and stain follow from its place alone. So a view is the same crop in
every training, whatever other images and labels there are, and only its boxes are today's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import functional as F

from al_loop.crops import CachedImage, Focus, choose_focus, cut
from al_loop.dataset import TrainingSample
from al_loop.train_batches import SeededCrop, Shown, common_class, generator_of
from al_loop.train_config import TrainingConfig
from backend.detector_model import CellMaskRCNN
from backend.store import replace_atomically

DIVISOR = 32  # px: batches are padded to multiples of the coarsest stride


class ViewDraws:
    """Draws the crops of each step among the views of these images, as `draw_crops` does among all crops."""

    def __init__(
        self, config: TrainingConfig, images: Sequence[CachedImage], samples: Sequence[TrainingSample], trunk: str
    ) -> None:
        self.config, self.images = config, images
        detector = config.detector
        said = [detector.short_side, detector.max_side, config.crop, asdict(config.augmentation)]
        self._common, self._trunk = json.dumps(said, sort_keys=True), trunk
        self._names = [sample.sha256 for sample in samples]
        self._anchors = [anchors(image, config.crop, common_class(config)) for image in images]

    def draw(self, step: int, share: Sequence[int]) -> list[SeededCrop]:
        """The views of one step whose indices are in `share`: a function of (seed, step) alone."""
        crops = []
        for index in share:
            rng = generator_of(self.config, step, index)
            common = common_class(self.config)
            focus = choose_focus(self.images, rng, common=common, rare_share=self.config.rare_share)
            crops.append(self.view(focus, rng))
        return crops

    def view(self, focus: Focus, rng: np.random.Generator) -> SeededCrop:
        """One of the views nearest to the focus. `rng` chooses which, and seeds what the detector draws for it."""
        cells, grid = self._anchors[focus.image]
        points = np.concatenate([cells, grid])
        nearest = int(((points - [focus.x, focus.y]) ** 2).sum(axis=1).argmin())
        number = int(rng.integers(self.config.views)) if nearest < len(cells) else 0
        x, y = (round(float(value)) for value in points[nearest])
        name = hashlib.sha256(f"{self._common} {self._names[focus.image]} {x} {y} {number}".encode()).hexdigest()
        own = np.random.default_rng(int(name[:32], 16))
        crop = cut(self.images[focus.image], Focus(focus.image, x, y), self.config.crop, self.config.augmentation, own)
        # By content: another release may cut or stain otherwise, and would then find nothing instead of the wrong maps.
        key = hashlib.sha256(f"{self._trunk} {crop.pixels.shape} ".encode() + crop.pixels.tobytes()).hexdigest()
        return SeededCrop(crop, int(rng.integers(2**62)), key)


def anchors(image: CachedImage, crop: int, common: int | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centres (N, 2) of the rare cells, and points (M, 2) of a grid whose crops cover the image; x, y in px.

    Where experts looked at some cells only, at these instead of the rare ones.
    """
    rare = image.boxes[image.labels != common] if common is not None else image.boxes
    if image.reviewed is not None:
        rare = image.reviewed
    cells = (rare[:, :2] + rare[:, 2:]).astype(np.float64) / 2
    height, width = image.pixels.shape[:2]
    rows, columns = (max(1, round(side / crop)) if crop else 1 for side in (height, width))
    grid = [
        ((column + 0.5) * width / columns, (row + 0.5) * height / rows)
        for row in range(rows)
        for column in range(columns)
    ]
    return cells.reshape(-1, 2), np.array(grid, dtype=np.float64)


class TrunkFeatures:
    """The trunk's maps of views in float16, one file each, at most `limit_bytes` together: the longest unused go first.

    Maps that were just computed are rounded as stored ones are, so a training does not see which they were.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self.folder, self.limit_bytes = folder, limit_bytes
        self.hits = self.misses = 0
        folder.mkdir(parents=True, exist_ok=True)
        self._bytes = sum(file.stat().st_size for file in folder.glob("??/*.safetensors"))

    def path(self, key: str) -> Path:
        """Where the maps of this view are, or will be."""
        return self.folder / key[:2] / f"{key}.safetensors"

    def levels(self, model: CellMaskRCNN, shown: Shown, device: torch.device) -> list[Tensor]:
        """The trunk's maps (C, h, w) float16 of one crop, padded to multiples of 32 px; from disk where they are."""
        path = self.path(str(shown.view))
        stored = _read(path)
        if stored is not None:
            self.hits += 1
            return [level.to(device, non_blocking=True) for level in stored]
        self.misses += 1
        with torch.no_grad():
            image = model.transform.normalize(shown.image.to(device).float() / 255)
            right, below = -image.shape[2] % DIVISOR, -image.shape[1] % DIVISOR
            maps = model.backbone.trunk_levels(F.pad(image, (0, right, 0, below))[None])
        levels = [level[0].half() for level in maps]
        self._store(path, levels)
        return levels

    def _store(self, path: Path, levels: Sequence[Tensor]) -> None:
        tensors = {str(index): level.cpu().contiguous() for index, level in enumerate(levels)}
        replace_atomically(path, (safetensors.torch.save(tensors),))
        self._bytes += path.stat().st_size
        if self._bytes > self.limit_bytes:
            self._make_room()

    def _make_room(self) -> None:
        """Remove the longest unused files until a tenth of the room is free, so that this is not done every time."""
        files = sorted((file.stat().st_mtime, file.stat().st_size, file) for file in self._files())
        self._bytes = sum(size for _, size, _ in files)
        for _, size, file in files:
            if self._bytes <= 0.9 * self.limit_bytes:
                return
            file.unlink(missing_ok=True)
            self._bytes -= size

    def _files(self) -> list[Path]:
        return list(self.folder.glob("??/*.safetensors"))


def _read(path: Path) -> list[Tensor] | None:
    """Stored maps, noted as used; None when they are not there or damaged."""
    try:
        stored = safetensors.torch.load(path.read_bytes())
        path.touch()
    except (FileNotFoundError, SafetensorError):
        return None
    return [stored[str(index)] for index in range(len(stored))]


def losses_from_features(
    model: CellMaskRCNN, cache: TrunkFeatures, batch: Sequence[Shown], targets: list[dict[str, Tensor]]
) -> dict[str, Tensor]:
    """The detector's losses on views, their trunk's maps taken from the cache. targets: of `as_tensors`."""
    device = next(model.parameters()).device
    maps = [cache.levels(model, shown, device) for shown in batch]
    sizes = [(int(shown.image.shape[1]), int(shown.image.shape[2])) for shown in batch]
    height, width = (max(-(-size[axis] // DIVISOR) * DIVISOR for size in sizes) for axis in (0, 1))
    levels = []
    for level in zip(*maps, strict=True):
        tallest, widest = (max(each.shape[axis] for each in level) for axis in (1, 2))
        padded = [F.pad(each, (0, widest - each.shape[2], 0, tallest - each.shape[1])) for each in level]
        levels.append(torch.stack(padded).float().contiguous(memory_format=torch.channels_last))
    return model.losses_from_levels(levels, (height, width), sizes, targets)
