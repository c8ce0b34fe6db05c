"""How many fields a second our training takes in, beside torchvision's reference loop on the same fields.

The reference is what references/detection of torchvision does: two separate models, whole fields decoded from disk at
every step and mirrored at random, full-size target masks, 512 sampled boxes, float32, SGD. Ours is `train` itself.
After each of our steps one of theirs is run, so that whatever else the machine does slows both.

A field is a field: on whole fields both see the same; a crop counts as the share of a field's pixels it has.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from al_loop.benchmark_detect import device_name, wait_for
from al_loop.benchmark_reference import torchvision_mask_rcnn
from al_loop.dataset import TrainingSample
from al_loop.labelled_files import read_labelled, training_samples
from al_loop.train import Progress, train
from al_loop.train_config import TrainingConfig
from backend.detect import DetectorConfig, resize_image
from backend.errors import CellloopError
from backend.images import read_image
from backend.instances import ROLES, role_classes
from backend.masks import box_to_rle, decode

BATCH = 2


def benchmark_train(
    images: Path,
    annotations: Path | None,
    fields: int,
    detector: DetectorConfig,
    steps: int,
    device: torch.device,
    scratch: Path,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    roles: Sequence[str] = ROLES,
) -> dict[str, Any]:
    """Train these roles for `steps` steps each way on the first `fields` fields of a folder; plain values, for JSON.

    Raises UnusableAnnotations, NotEnoughData.
    """
    files = read_labelled(images, annotations)[0][:fields]
    if not files:
        raise CellloopError("bench train: expected at least one labelled field, got none")
    small = resize_image(read_image(Path(files[0].labelled.file)), detector)
    per_field: dict[str, list[float]] = {"torchvision": [], "whole fields": [], "crops": []}
    share = TrainingConfig().crop ** 2 / (small.shape[0] * small.shape[1])
    for number, role in enumerate(roles):
        samples = training_samples(files, role)
        config = TrainingConfig(
            detector=replace(detector, role=role), steps=steps + 1, batch_size=BATCH, checkpoint_steps=steps + 2
        )
        for name, crop, counted in (("whole fields", 0, 1.0), ("crops", config.crop, min(share, 1.0))):
            said = 2 * number + (name == "crops")
            ours, theirs = take_turns(replace(config, crop=crop), samples, device, scratch / f"{role}-{crop}")
            per_field[name].append(float(np.median(ours)) / (BATCH * counted))
            per_field["torchvision"].append(float(np.median(theirs)) / BATCH)
            on_progress(said + 1, 2 * len(roles))
    seconds = {name: sum(values) / (len(values) / len(roles)) for name, values in per_field.items()}
    return {
        "speedup": round(seconds["torchvision"] / seconds["whole fields"], 2),
        "speedup_crops": round(seconds["torchvision"] / seconds["crops"], 2),
        "fields_per_second": {name: round(1 / value, 4) for name, value in seconds.items()},
        "field_px": list(small.shape[:2]),
        "crop_counts_as": round(min(share, 1.0), 3),
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "steps": steps,
        "fields": len(files),
    }


def take_turns(
    config: TrainingConfig, samples: Sequence[TrainingSample], device: torch.device, out: Path
) -> tuple[list[float], list[float]]:
    """Seconds of each of our steps and of each of torchvision's, one after the other; the first of both is left out."""
    reference = reference_steps(config.detector, samples, device)
    ours: list[float] = []
    theirs: list[float] = []
    mark = time.perf_counter()

    def after_ours(progress: Progress) -> None:
        nonlocal mark
        wait_for(device)
        now = time.perf_counter()
        ours.append(now - mark)
        next(reference)
        wait_for(device)
        mark = time.perf_counter()
        theirs.append(mark - now)

    train(config, samples, out=out, on_progress=after_ours, device=device)
    return ours[1:], theirs[1:]


def reference_steps(
    config: DetectorConfig, samples: Sequence[TrainingSample], device: torch.device
) -> Iterator[dict[str, float]]:
    """torchvision's reference loop: one step per `next`, which gives its losses."""
    model: Any = torchvision_mask_rcnn(config, pretrained=True).to(device).train()
    learned: list[nn.Parameter] = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(learned, lr=1e-4, momentum=0.9, weight_decay=1e-4)
    rng = np.random.default_rng(0)
    while True:
        chosen = rng.choice(len(samples), BATCH, replace=len(samples) < BATCH)
        loaded = [load_plainly(samples[int(index)], config.role, bool(rng.integers(2))) for index in chosen]
        images = [image.to(device) for image, _ in loaded]
        targets = [{name: value.to(device) for name, value in target.items()} for _, target in loaded]
        losses: dict[str, Tensor] = model(images, targets)
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        yield {name: float(value.detach()) for name, value in losses.items()}


def load_plainly(sample: TrainingSample, role: str, mirrored: bool) -> tuple[Tensor, dict[str, Tensor]]:
    """A field from disk as (3, h, w) float32 in [0, 1], with full-size masks (N, h, w) uint8."""
    classes = role_classes(role)
    pixels = read_image(sample.path)
    size = (pixels.shape[0], pixels.shape[1])
    known = [index for index, label in enumerate(sample.labels) if label in classes]
    boxes = torch.from_numpy(sample.boxes[known].reshape(-1, 4).copy())
    masks = np.zeros((len(known), *size), dtype=np.uint8)
    for row, index in enumerate(known):
        rle = sample.masks[index]
        masks[row] = decode(box_to_rle(sample.boxes[index], size) if rle is None else rle)
    image = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
    target = {
        "boxes": boxes,
        "labels": torch.tensor([classes.index(sample.labels[index]) + 1 for index in known], dtype=torch.int64),
        "masks": torch.from_numpy(masks),
    }
    if mirrored:
        image = image.flip(-1)
        target["masks"] = target["masks"].flip(-1)
        target["boxes"] = torch.stack([size[1] - boxes[:, 2], boxes[:, 1], size[1] - boxes[:, 0], boxes[:, 3]], dim=1)
    return image, target
