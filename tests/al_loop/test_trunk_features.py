"""A frozen trunk: nothing of it is learned, its maps are computed once per view, and sharing changes no result."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from al_loop.dataset import TrainingSample
from al_loop.train import Progress, train
from al_loop.train_batches import as_shown
from al_loop.train_config import TrainingConfig
from al_loop.train_images import load_images
from al_loop.train_model import FrozenTrunk, losses_on, start_model
from al_loop.trunk_features import TrunkFeatures, ViewDraws, anchors
from backend.backbones import TRUNKS
from backend.checkpoints import load_weights
from backend.detect import save_detector
from backend.errors import WeightsCorrupt
from tests.al_loop.tiny_training import TINY, two_fields
from tests.threads import one_thread


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture
def samples(tmp_path: Path) -> list[TrainingSample]:
    return two_fields(tmp_path)


@pytest.fixture
def frozen(samples: list[TrainingSample], tmp_path: Path) -> tuple[TrainingConfig, FrozenTrunk]:
    """An `infected` training on the trunk of an all_cells detector, and where that is."""
    weights = tmp_path / "all_cells.safetensors"
    model = start_model(TINY, samples, None, torch.device("cpu"))
    with torch.no_grad():
        next(model.backbone.trunk.parameters()).mul_(1.1)  # no longer ImageNet's
    sha256 = save_detector(weights, TINY.detector, model.state_dict())
    detector = replace(TINY.detector, role="infected")
    config = replace(TINY, detector=detector, trunk=sha256, batch_size=2, views=1, steps=4, checkpoint_steps=2)
    return config, FrozenTrunk(weights, tmp_path / "features")


Frozen = tuple[TrainingConfig, FrozenTrunk]


def test_the_trunk_stays_and_a_warm_cache_gives_the_same_bytes(
    samples: list[TrainingSample], frozen: Frozen, tmp_path: Path
) -> None:
    config, trunk = frozen
    cold = train(config, samples, out=tmp_path / "cold", trunk=trunk)
    assert cold is not None
    state, _ = load_weights(cold.weights_path, cold.sha256)
    taken, _ = load_weights(trunk.weights)
    inside = [name for name in taken if name.startswith(TRUNKS)]
    assert inside
    assert all(torch.equal(state[name], taken[name]) for name in inside)
    assert not torch.equal(state["roi_heads.box_predictor.cls_score.weight"], torch.zeros(5, 512))
    assert trunk.features is not None
    files = sorted(trunk.features.glob("??/*"))
    assert files
    stopped: list[Progress] = []
    for _ in range(2):  # stopped after the first step, and continued, on what the first training computed
        warm = train(
            config,
            samples,
            out=tmp_path / "warm",
            trunk=trunk,
            on_progress=stopped.append,
            should_stop=lambda: len(stopped) == 1,
        )
    assert warm is not None
    assert warm.sha256 == cold.sha256
    assert sorted(trunk.features.glob("??/*")) == files, "no view was computed again"


def test_losses_from_maps_on_disk_are_those_of_the_images(samples: list[TrainingSample], frozen: Frozen) -> None:
    config, trunk = frozen
    model = start_model(config, samples, trunk, torch.device("cpu"))
    assert not any(p.requires_grad for name, p in model.named_parameters() if name.startswith(TRUNKS))
    draws = ViewDraws(config, load_images(config, samples), samples, "trunk")
    crops = [as_shown(drawn) for drawn in draws.draw(0, range(2))]
    with torch.no_grad():
        cached = losses_on(model, config, trunk, Path())(crops)
        live = losses_on(model, config, None, Path())(crops)
    for name, value in live.items():
        assert float(cached[name]) == pytest.approx(float(value), rel=0.02, abs=1e-4), name


def test_a_view_is_the_same_crop_whatever_else_there_is(samples: list[TrainingSample], frozen: Frozen) -> None:
    config = replace(frozen[0], rare_share=1.0)
    images = load_images(config, samples)
    both = ViewDraws(config, images, samples, "trunk")
    alone = ViewDraws(replace(config, seed=9), images[1:], samples[1:], "trunk")
    other = ViewDraws(config, images, samples, "another trunk")
    keys, keys_alone, keys_other = (
        {crop.view for step in range(30) for crop in draws.draw(step, range(2))} for draws in (both, alone, other)
    )
    cells = sum(len(image.labels) for image in images)
    assert len(keys) <= cells, "one view for each cell"
    assert keys_alone <= keys
    assert not keys_other & keys
    first, again = both.draw(3, range(2)), both.draw(3, range(2))
    assert all(
        np.array_equal(a.crop.boxes, b.crop.boxes) and a.seed == b.seed for a, b in zip(first, again, strict=True)
    )


def test_views_lie_at_rare_cells_and_on_a_grid(samples: list[TrainingSample]) -> None:
    [image, _] = load_images(TINY, samples)
    cells, grid = anchors(image, 96, 1)
    assert len(cells) == int((image.labels != 1).sum())
    assert grid.tolist() == [[40.0, 64.0], [120.0, 64.0]]  # 128 x 160 px hold two crops of 96
    assert anchors(image, 0, None)[1].tolist() == [[80.0, 64.0]]


def test_the_cache_keeps_to_its_room_and_survives_damage(
    samples: list[TrainingSample], frozen: Frozen, tmp_path: Path
) -> None:
    config, trunk = frozen
    model = start_model(config, samples, trunk, torch.device("cpu"))
    draws = ViewDraws(replace(config, views=50), load_images(config, samples), samples, "trunk")
    shown = {crop.view: as_shown(crop) for step in range(4) for crop in draws.draw(step, range(2))}
    one, two, three = list(shown.values())[:3]
    cache = TrunkFeatures(tmp_path / "small", 0)
    cache.levels(model, one, torch.device("cpu"))
    assert not list(cache.folder.glob("??/*")), "nothing fits"
    cache = TrunkFeatures(tmp_path / "small", 10**9)
    kept = [cache.levels(model, each, torch.device("cpu")) for each in (one, two)]
    os.utime(cache.path(str(two.view)), (1, 1))
    room = int(1.2 * sum(file.stat().st_size for file in cache.folder.glob("??/*")))
    again = TrunkFeatures(tmp_path / "small", room)
    again.levels(model, three, torch.device("cpu"))
    assert not again.path(str(two.view)).exists(), "the longest unused went"
    assert again.path(str(one.view)).exists()
    again.path(str(one.view)).write_bytes(b"damaged")
    mended = again.levels(model, one, torch.device("cpu"))
    assert all(torch.equal(a, b) for a, b in zip(mended, kept[0], strict=True))
    assert (again.hits, again.misses) == (0, 2)


def test_a_trunk_that_is_not_there_or_does_not_fit_is_refused(
    samples: list[TrainingSample], frozen: Frozen, tmp_path: Path
) -> None:
    config, trunk = frozen
    with pytest.raises(WeightsCorrupt, match="expected sha256"):
        train(replace(config, trunk="0" * 64), samples, out=tmp_path / "run", trunk=trunk)
    with pytest.raises(ValueError, match="expected where its weights are"):
        train(config, samples, out=tmp_path / "run")
