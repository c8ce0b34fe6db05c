"""A batch's losses are the mean of its images' losses, with each image's own draws."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from backend.detect import DetectorConfig, build_detector
from backend.detector_model import LEAST_SAMPLES, SAMPLE_PX, CellMaskRCNN
from backend.loss_samplers import SeededSampler, equal_shares
from tests.threads import one_thread

SIDE = 96


@pytest.fixture(scope="module")
def model() -> Iterator[CellMaskRCNN]:
    with one_thread():
        torch.manual_seed(0)
        yield build_detector(DetectorConfig(role="infected"), pretrained=False).train()


def batch(count: int) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Noise with one cell more in each image than in the one before, and a seed for each."""
    generator = torch.Generator().manual_seed(7)
    images = [torch.rand(3, SIDE, SIDE, generator=generator) for _ in range(count)]
    targets = []
    for index in range(count):
        corners = torch.arange(index + 1)[:, None] * 12.0 + torch.tensor([[4.0, 6.0]])
        masks = torch.zeros(index + 1, SIDE, SIDE, dtype=torch.uint8)
        masks[:, 10:30, 10:30] = 1
        targets.append(
            {
                "boxes": torch.cat([corners, corners + 40], dim=1),
                "labels": torch.arange(index + 1) % 4 + 1,
                "masks": masks,
                "seed": torch.tensor(100 + index),
            }
        )
    return images, targets


def test_losses_of_a_batch_are_the_mean_of_its_images(model: CellMaskRCNN) -> None:
    images, targets = batch(3)
    together = model(images, targets)
    alone = [model([image], [target]) for image, target in zip(images, targets, strict=True)]
    for name, value in together.items():
        expected = sum(float(each[name].detach()) for each in alone) / 3
        assert float(value.detach()) == pytest.approx(expected, rel=1e-4), name


def test_the_seed_decides_what_is_drawn(model: CellMaskRCNN) -> None:
    images, targets = batch(1)
    first, again = model(images, targets), model(images, targets)
    other = model(images, [targets[0] | {"seed": torch.tensor(5)}])
    assert {name: float(v.detach()) for name, v in first.items()} == {
        name: float(v.detach()) for name, v in again.items()
    }
    assert float(first["loss_objectness"].detach()) != float(other["loss_objectness"].detach())


def test_class_weights_scale_the_classifiers_loss_alone(model: CellMaskRCNN) -> None:
    images, targets = batch(2)
    plain = model(images, targets)
    model.roi_heads.class_weights = torch.full((5,), 2.0)
    try:
        doubled = model(images, targets)
    finally:
        model.roi_heads.class_weights = None
    assert doubled["loss_classifier"].item() == pytest.approx(2 * plain["loss_classifier"].item(), rel=1e-5)
    assert doubled["loss_mask"].item() == plain["loss_mask"].item()


def test_losses_from_the_trunks_maps_are_the_losses(model: CellMaskRCNN) -> None:
    images, targets = batch(2)
    tensors = model.transform(images)[0].tensors
    levels = model.backbone.trunk_levels(tensors)
    again = model.losses_from_levels(levels, (SIDE, SIDE), [(SIDE, SIDE)] * 2, targets)
    for name, value in model(images, targets).items():
        assert again[name].item() == pytest.approx(value.item(), rel=1e-5), name


class CountingSampler(SeededSampler):
    """Remembers how many boxes it drew from each image."""

    drawn: ClassVar[list[int]] = []

    def __call__(self, matched_idxs: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        found = super().__call__(matched_idxs)
        self.drawn.extend(int((positive + negative).sum()) for positive, negative in zip(*found, strict=True))
        return found


def test_a_larger_image_teaches_from_more_boxes(model: CellMaskRCNN, monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = CountingSampler(LEAST_SAMPLES, 0.25)
    monkeypatch.setattr(model.roi_heads, "fg_bg_sampler", sampler)
    images, targets = batch(2)
    images[1] = torch.rand(3, 480, 640, generator=torch.Generator().manual_seed(1))
    targets[1]["masks"] = torch.zeros(2, 480, 640, dtype=torch.uint8)
    model(images, targets)
    assert sampler.drawn == [LEAST_SAMPLES, 480 * 640 // SAMPLE_PX**2]


def test_an_image_with_nothing_drawn_counts_as_zero() -> None:
    assert equal_shares([2, 0, 1], torch.zeros(1)).tolist() == pytest.approx([1 / 6, 1 / 6, 1 / 3])
    positives, negatives = SeededSampler(4, 0.5)([torch.tensor([1, 1, 1, 0, -1, 0, 0])])
    assert (int(positives[0].sum()), int(negatives[0].sum()), int(positives[0][4] + negatives[0][4])) == (2, 2, 0)
