"""What each step sees: crops that are a function of (seed, step) alone, drawn in the background, as tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from al_loop.crops import CachedImage, Crop, choose_focus, cut
from al_loop.train_config import TrainingConfig
from backend.instances import role_classes

T = TypeVar("T")


@dataclass(frozen=True)
class SeededCrop:
    """One crop of a step, and the seed of what the detector draws for it. view: its key among cached trunk features."""

    crop: Crop
    seed: int
    view: str | None = None


@dataclass(frozen=True)
class Shown:
    """A crop as tensors on the CPU. image: (3, h, w) uint8; target: as the detector takes it."""

    image: Tensor
    target: dict[str, Tensor]
    view: str | None = None


def common_class(config: TrainingConfig) -> int | None:
    """The channel that is no rare class: the red blood cell's, if the detector has it."""
    return 1 if role_classes(config.detector.role)[0] == "red blood cell" else None


def generator_of(config: TrainingConfig, step: int, index: int) -> np.random.Generator:
    """The randomness of one crop of one step, whoever draws it and whenever."""
    return np.random.default_rng([config.seed, step, index])


def draw_crops(
    config: TrainingConfig, images: Sequence[CachedImage], step: int, share: Sequence[int] | None = None
) -> list[SeededCrop]:
    """The crops of one step, or those of them whose indices are in `share`."""
    crops = []
    for index in range(config.crops_per_step) if share is None else share:
        rng = generator_of(config, step, index)
        focus = choose_focus(images, rng, common=common_class(config), rare_share=config.rare_share)
        crop = cut(images[focus.image], focus, config.crop, config.augmentation, rng)
        crops.append(SeededCrop(crop, int(rng.integers(2**62))))
    return crops


def as_shown(drawn: SeededCrop, pin: bool = False) -> Shown:
    """A crop's tensors; in pinned memory on request, from where a GPU fetches them while it computes."""
    crop = drawn.crop
    image = torch.from_numpy(crop.pixels).permute(2, 0, 1)  # strides stay those of (h, w, 3): channels last
    target = {
        "boxes": torch.from_numpy(crop.boxes),
        "labels": torch.from_numpy(crop.labels),
        "masks": torch.from_numpy(crop.masks),
        "ignore_boxes": torch.from_numpy(crop.ignore),
    }
    if pin:
        image = image.pin_memory()
        target = {name: value.pin_memory() for name, value in target.items()}
    return Shown(image, target | {"seed": torch.tensor(drawn.seed)}, drawn.view)


def as_tensors(batch: Sequence[Shown], device: torch.device) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Crops as torchvision's detectors take them: (3, h, w) float32 in [0, 1], and one target per image."""
    images = [shown.image.to(device, non_blocking=True).float() / 255 for shown in batch]
    targets = [
        {name: value if name == "seed" else value.to(device, non_blocking=True) for name, value in shown.target.items()}
        for shown in batch
    ]
    return images, targets


def ahead(prepare: Callable[[int], T], steps: range) -> Iterator[T]:
    """`prepare(step)` for each step in order; the next one is prepared in a thread while the last is worked on."""
    if not steps:
        return
    with ThreadPoolExecutor(1, thread_name_prefix="crops") as hands:
        waiting = hands.submit(prepare, steps[0])
        for step in steps:
            prepared = waiting.result()
            if step + steps.step in steps:
                waiting = hands.submit(prepare, step + steps.step)
            yield prepared
