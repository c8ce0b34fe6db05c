"""Which anchors and proposals a training step learns from, drawn for each image by itself.

torchvision draws from one generator for the whole batch, and averages losses over all that was drawn. Then a batch of
four would learn something else than two batches of two, and a step shared by two GPUs something else than one alone.
Here an image brings its own seed, and counts as much as any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler


class SeededSampler(BalancedPositiveNegativeSampler):
    """torchvision's sampler of positives and negatives, with one seed per image.

    seeds: one per image of the next call; None or an image without one: torch's global generator.
    counts: how many to draw from each image of the next call; None: `batch_size_per_image` from each.
    """

    seeds: Sequence[int | None] | None = None
    counts: Sequence[int] | None = None

    def take_seeds(self, targets: Sequence[Mapping[str, Tensor]]) -> None:
        """The seeds of these targets' images: the optional entry "seed" of each, a scalar int64 on the CPU."""
        self.seeds = [int(target["seed"]) if "seed" in target else None for target in targets]

    def __call__(self, matched_idxs: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Two lists of masks (uint8), one pair per image: the positives (label >= 1) and negatives (0) drawn."""
        positives: list[Tensor] = []
        negatives: list[Tensor] = []
        for index, labels in enumerate(matched_idxs):
            generator = self.generator(index, labels.device)
            positive, negative = torch.where(labels >= 1)[0], torch.where(labels == 0)[0]
            total = self.batch_size_per_image if self.counts is None else self.counts[index]
            wanted = min(int(total * self.positive_fraction), len(positive))
            for found, count, masks in ((positive, wanted, positives), (negative, total - wanted, negatives)):
                chosen = torch.randperm(len(found), device=labels.device, generator=generator)[:count]
                masks.append(torch.zeros_like(labels, dtype=torch.uint8).index_fill_(0, found[chosen], 1))
        return positives, negatives

    def generator(self, index: int, device: torch.device) -> torch.Generator | None:
        """The generator of one image, at its start; None: torch's global one."""
        seed = None if self.seeds is None else self.seeds[index]
        return None if seed is None else torch.Generator(device).manual_seed(seed)


def equal_shares(counts: Sequence[int], like: Tensor) -> Tensor:
    """Weights (sum of counts,) in the type of `like`: sum to 1 within each image, divided by the number of images.

    The weighted sum of what was drawn is then the mean over images of each image's own mean.
    """
    weights = [1.0 / (max(count, 1) * len(counts)) for count in counts]
    return torch.repeat_interleave(
        torch.tensor(weights, dtype=torch.float32), torch.tensor(list(counts), dtype=torch.int64)
    ).to(like.device)
