from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from al_loop.crops import Augmentation
from al_loop.dataset import TrainingSample
from al_loop.metrics import evaluate_detections
from al_loop.render import render_smear
from al_loop.train import CHECKPOINT, Progress, train
from al_loop.train_batches import draw_crops
from al_loop.train_config import TrainingConfig
from al_loop.train_images import load_images
from al_loop.train_step import schedule
from backend.checkpoints import load_weights
from backend.detect import DetectorConfig, load_detector
from backend.errors import NotEnoughData, TrainingDiverged
from backend.masks import mask_iou
from backend.overlap import iou_matrix, match_one_to_one
from tests.al_loop.tiny_training import TINY, sample_of, two_fields
from tests.threads import one_thread


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture
def samples(tmp_path: Path) -> list[TrainingSample]:
    return two_fields(tmp_path)


def test_a_training_killed_at_any_step_goes_on_to_the_same_bits(samples: list[TrainingSample], tmp_path: Path) -> None:
    whole = train(TINY, samples, out=tmp_path / "whole")
    assert whole is not None

    class Killed(Exception):
        pass

    def kill_after_five(progress: Progress) -> None:
        if progress.step == 5:  # one step after the checkpoint of step 4
            raise Killed

    with pytest.raises(Killed):
        train(TINY, samples, out=tmp_path / "killed", on_progress=kill_after_five)
    steps: list[int] = []
    resumed = train(TINY, samples, out=tmp_path / "killed", on_progress=lambda progress: steps.append(progress.step))
    assert resumed is not None
    assert steps == [5, 6]
    assert resumed.sha256 == whole.sha256
    assert resumed.loss == whole.loss
    again = train(TINY, samples, out=tmp_path / "killed", on_progress=lambda progress: steps.append(progress.step))
    assert again is not None
    assert again.sha256 == whole.sha256
    assert steps == [5, 6]  # nothing was trained a second time


def test_told_to_stop_it_stops_and_the_checkpoint_stays(samples: list[TrainingSample], tmp_path: Path) -> None:
    asked: list[Progress] = []
    stopped = train(TINY, samples, out=tmp_path, on_progress=asked.append, should_stop=lambda: len(asked) == 2)
    assert stopped is None
    assert len(asked) == 2
    assert (tmp_path / CHECKPOINT).exists()
    assert not (tmp_path / "weights.safetensors").exists()


def test_the_checkpoint_of_another_training_is_not_resumed(samples: list[TrainingSample], tmp_path: Path) -> None:
    short = replace(TINY, steps=2)
    train(short, samples, out=tmp_path)
    steps: list[int] = []
    train(replace(short, seed=1), samples, out=tmp_path, on_progress=lambda progress: steps.append(progress.step))
    assert steps == [1, 2]


def test_progress_tells_what_a_person_wants_to_know(samples: list[TrainingSample], tmp_path: Path) -> None:
    seen: list[Progress] = []
    trained = train(replace(TINY, steps=2), samples, out=tmp_path, on_progress=seen.append)
    assert trained is not None
    assert [(progress.step, progress.steps) for progress in seen] == [(1, 2), (2, 2)]
    assert seen[-1].loss == pytest.approx(sum(seen[-1].losses.values()), rel=1e-4)
    assert set(seen[-1].losses) == {
        *("loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg")
    }
    assert "step 2 of 2" in seen[-1].in_words()
    state, metadata = load_weights(trained.weights_path, trained.sha256)
    assert metadata["detector"] == TINY.detector.to_json()
    assert all(torch.isfinite(value).all() for value in state.values() if value.is_floating_point())


def test_a_loss_that_is_not_finite_ends_the_training(samples: list[TrainingSample], tmp_path: Path) -> None:
    wild = replace(TINY, learning_rate=1e12, warmup_steps=1, clip_norm=1e12)
    with pytest.raises(TrainingDiverged, match="lower the learning rate"):
        train(wild, samples, out=tmp_path)


def test_images_without_a_cell_of_the_role_cannot_teach_it(samples: list[TrainingSample], tmp_path: Path) -> None:
    red = [
        replace(sample, boxes=sample.boxes[:0], labels=(), masks=(), mask_sources=(), ignore_boxes=sample.boxes)
        for sample in samples
    ]
    config = replace(TINY, detector=replace(TINY.detector, role="infected"))
    with pytest.raises(NotEnoughData, match="training infected: expected at least one labelled cell of trophozoite"):
        train(config, red, out=tmp_path)


def test_a_step_draws_the_same_crops_whatever_happened_before(samples: list[TrainingSample]) -> None:
    images = load_images(TINY, samples)
    first, again, other = (draw_crops(TINY, images, step) for step in (3, 3, 4))
    assert np.array_equal(first[0].crop.pixels, again[0].crop.pixels)
    assert first[0].seed == again[0].seed != other[0].seed
    assert not np.array_equal(first[0].crop.pixels, other[0].crop.pixels)


def test_the_rate_warms_up_and_cools_down() -> None:
    rates = [schedule(TrainingConfig(steps=100, warmup_steps=10), step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == 1
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[10:]))
    assert rates[-1] < 0.02


def test_two_fields_learned_by_heart_are_found_again(tmp_path: Path) -> None:
    fields = [render_smear(seed, (256, 320), cells=14, infected=0.0, difficult=0.0) for seed in (5, 6)]
    config = TrainingConfig(
        detector=DetectorConfig(short_side=256, max_side=512),
        steps=70,
        batch_size=1,
        crop=0,
        rare_share=0.0,
        learning_rate=2e-3,
        trunk_rate=0.5,
        augmentation=Augmentation(flips=False, scale=(1.0, 1.0), colour=0.2),
    )
    learned = [sample_of(field, tmp_path, str(index)) for index, field in enumerate(fields)]
    trained = train(config, learned, out=tmp_path / "run")
    assert trained is not None
    detector = load_detector(trained.weights_path, trained.sha256)
    found = [detector.detect(field.image, masks=True) for field in fields]
    report = evaluate_detections([field.cells for field in fields], found, [field.difficult for field in fields])
    ap50 = report.value("ap50", "red blood cell")
    assert ap50 is not None
    assert ap50 > 0.9
    overlaps = []
    for field, seen in zip(fields, found, strict=True):
        pairs = match_one_to_one(iou_matrix(field.cells.boxes, seen.boxes), 0.5)
        overlaps += [mask_iou(field.cells.masks[true], seen.masks[ours]) for true, ours in pairs]
    assert len(overlaps) > 20
    assert np.mean(overlaps) > 0.75
