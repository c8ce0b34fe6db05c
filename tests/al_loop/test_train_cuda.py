"""On a real GPU: memory that really runs out, a training that goes on, and the same cells as on the CPU.

Skipped where there is none. Run them on a new GPU machine: pytest tests/al_loop/test_train_cuda.py
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from al_loop.dataset import TrainingSample
from al_loop.render import render_smear
from al_loop.train import CHECKPOINT, Progress, train
from al_loop.train_checkpoint import resume
from al_loop.train_config import TrainingConfig, training_identity
from al_loop.train_model import start_model
from al_loop.train_step import MovingAverage, make_optimizer
from backend.detect import Detector, DetectorConfig, load_detector
from backend.errors import OutOfMemory
from backend.instances import Instances
from backend.overlap import iou_matrix
from backend.pairs import STARTER, read_card, weights_name
from tests.al_loop.tiny_training import TINY, sample_of, two_fields

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU on this machine")

# Eight crops at a time take several times what one takes.
LARGE = TrainingConfig(detector=DetectorConfig(short_side=600, max_side=800), steps=3, batch_size=8, crop=512)


@pytest.fixture(autouse=True)
def _memory() -> Iterator[None]:
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


@pytest.fixture
def samples(tmp_path: Path) -> list[TrainingSample]:
    return [sample_of(render_smear(seed, (600, 800), cells=40, infected=0.3), tmp_path, str(seed)) for seed in (1, 2)]


def peak(config: TrainingConfig, samples: list[TrainingSample], out: Path) -> int:
    """Bytes that the allocator held at most during such a training."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    train(config, samples, out=out, device="cuda")
    return torch.cuda.max_memory_reserved()


def allow(held: float) -> None:
    """Let this process hold so many bytes of the GPU and no more."""
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(held / torch.cuda.get_device_properties(0).total_memory)


def test_a_gpu_that_runs_out_of_memory_trains_with_fewer_crops_at_a_time(
    samples: list[TrainingSample], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = peak(LARGE, samples, tmp_path / "whole")
    single = peak(replace(LARGE, batch_size=1, accumulate=8), samples, tmp_path / "single")
    assert whole > 1.5 * single, (whole, single)
    allow((whole + single) / 2)
    with caplog.at_level(logging.WARNING):
        trained = train(LARGE, samples, out=tmp_path / "short of memory", device="cuda")
    assert trained is not None
    assert np.isfinite(trained.loss)
    assert "out of memory: going on with" in caplog.text
    for share, said in ((0.5, "CELLLOOP_TRAIN_CROP"), (0.01, "the detector and its optimizer")):
        allow(single * share)
        with pytest.raises(OutOfMemory, match=said):
            train(LARGE, samples, out=tmp_path / "no memory", device="cuda")
    allow(whole * 2)
    assert train(LARGE, samples, out=tmp_path / "no memory", device="cuda") is not None  # nothing stays broken


def test_a_stopped_training_goes_on_where_it_was_on_a_gpu(tmp_path: Path) -> None:
    fields, device = two_fields(tmp_path), torch.device("cuda")
    seen: list[Progress] = []
    assert train(TINY, fields, out=tmp_path, device=device, on_progress=seen.append, should_stop=lambda: True) is None
    model = start_model(TINY, fields, None, device)
    optimizer, average = make_optimizer(model, TINY), MovingAverage(model)
    identity = training_identity(TINY, fields)
    standing = resume(tmp_path / CHECKPOINT, identity, 1, model, optimizer, average.state, device)
    kept = torch.load(tmp_path / CHECKPOINT, map_location=device, weights_only=True)
    assert standing.step == 1
    for there, here in ((kept["model"], model.state_dict()), (kept["average"], average.state)):
        assert all(
            torch.equal(value, here[name]) and value.device == here[name].device for name, value in there.items()
        )
    moments = optimizer.state_dict()["state"]
    assert moments
    assert all(torch.equal(kept["optimizer"]["state"][key]["exp_avg"], moments[key]["exp_avg"]) for key in moments)
    trained = train(TINY, fields, out=tmp_path, device=device, on_progress=seen.append)
    assert trained is not None
    assert np.isfinite(trained.loss)
    assert [progress.step for progress in seen] == list(range(1, TINY.steps + 1))


@pytest.mark.parametrize("role", ["all_cells", "infected"])
def test_a_gpu_sees_what_the_cpu_sees(role: str) -> None:
    def starter(device: str, bf16: bool) -> Detector:
        loaded = load_detector(STARTER / weights_name(role), read_card(STARTER).sha256[role], torch.device(device))
        return Detector(loaded.config, loaded.model, device, loaded.trunk_sha256, bf16)

    fields = [render_smear(seed, (600, 800), cells=60, infected=0.3).image for seed in range(3, 11)]
    expected = [starter("cpu", bf16=False).detect(field, masks=True) for field in fields]
    assert sum(int((seen.scores >= 0.5).sum()) for seen in expected) > 20
    for bf16, least in ((False, 0.99), (True, 0.9)):
        detector = starter("cuda", bf16)
        one_by_one = [detector.detect(field, masks=True) for field in fields]
        together = list(detector.detect_many(fields))
        for found in (one_by_one, together):
            shares = [found_again(*pair) for pair in zip(expected, found, strict=True)]
            shares += [found_again(*pair) for pair in zip(found, expected, strict=True)]
            assert np.mean(shares) >= least, (bf16, shares)
        assert all(mask is not None for seen in one_by_one for mask in seen.masks or ())


def found_again(first: Instances, second: Instances) -> float:
    """Of the cells of which the first is rather sure, the share that the second has at the same place, alike."""
    sure = np.flatnonzero(first.scores >= 0.6)  # whoever is at 0.5 here is at 0.49 there
    if not len(sure):
        return 1.0
    same = (iou_matrix(first.boxes[sure], second.boxes) >= 0.9) & (
        np.abs(first.scores[sure][:, None] - second.scores) <= 0.1
    )
    return float(same.any(axis=1).mean())
