"""Train one detector: a flat loop that can be killed at any step and goes on as if nothing had happened.

Everything random is drawn from (seed, step), never from what happened before, so a checkpoint needs no generator
states: after a resume, the same step sees the same crops. The last checkpoint stays in the folder; calling `train`
again after the end only returns the same weights again. Under `torchrun`, and inside `train_distributed.joined`,
each process takes its share of every step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from al_loop.dataset import TrainingSample
from al_loop.train_batches import SeededCrop, Shown, ahead, as_shown, draw_crops
from al_loop.train_checkpoint import resume, save_checkpoint
from al_loop.train_config import TrainingConfig, data_hash, training_identity
from al_loop.train_distributed import Ranks, current_ranks
from al_loop.train_images import OnImages, image_files, load_images, require_cells
from al_loop.train_model import FrozenTrunk, losses_on, start_model
from al_loop.train_provenance import provenance
from al_loop.train_step import MovingAverage, gradients, make_optimizer, room_for_the_detector, set_rates
from al_loop.trunk_features import ViewDraws
from backend.detect import save_detector
from backend.errors import CellloopError, TrainingDiverged

CHECKPOINT = "checkpoint.pt"
WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class Progress:
    """Where a training stands. loss: of this step; losses: its parts. seconds: in this process so far, and to go."""

    step: int
    steps: int
    loss: float
    losses: dict[str, float]
    seconds: float
    seconds_left: float
    images_per_second: float

    def in_words(self) -> str:
        return f"step {self.step} of {self.steps}, loss {self.loss:.3f}, {self.images_per_second:.1f} images/s"


@dataclass(frozen=True)
class TrainedModel:
    """Weights on disk, addressed by sha256, and how the training went."""

    weights_path: Path
    sha256: str
    steps: int
    loss: float  # mean of the last tenth of the steps
    seconds: float  # in this process: less than the whole after a resume


@room_for_the_detector()
def train(
    config: TrainingConfig,
    samples: Sequence[TrainingSample],
    *,
    out: Path,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    on_checkpoint: Callable[[Path], None] = lambda path: None,
    should_stop: Callable[[], bool] = lambda: False,
    device: torch.device | str = "cpu",
    on_images: OnImages = lambda done, total: None,
    trunk: FrozenTrunk | None = None,
    base: Path | None = None,
    about: Mapping[str, Any] | None = None,
) -> TrainedModel | None:
    """Train a detector on the samples and write its weights into `out`; None when told to stop before the end.

    Goes on from the checkpoint in `out` if that stems from the same configuration and samples. on_checkpoint(path):
    one was written. on_images(done, total) while images are decoded. trunk, base: needed when the configuration names
    one. about: kept in the weight file. Raises NotEnoughData without a single cell to learn, TrainingDiverged on a
    non-finite loss, OutOfMemory.
    """
    require_cells(config, samples)
    ranks, device = current_ranks(), torch.device(device)
    out.mkdir(parents=True, exist_ok=True)
    model = start_model(config, samples, trunk, device, base)
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer, average = make_optimizer(model, config), MovingAverage(model)
    identity = training_identity(config, samples)
    standing = resume(out / CHECKPOINT, identity, config.batch_size, model, optimizer, average.state, device)
    ranks.check_same(standing.step, "a checkpoint at step")
    first, started = standing.step, time.monotonic()
    draw = drawer(config, samples, ranks, out, on_images) if first < config.steps else None
    losses_of = losses_on(model, config, trunk, out)

    def prepare(step: int) -> list[Shown]:
        crops = draw(step, ranks.share(config.crops_per_step)) if draw else []
        return [as_shown(crop, pin=device.type == "cuda") for crop in crops]

    for step, crops in enumerate(ahead(prepare, range(first, config.steps)), start=first):
        set_rates(optimizer, config, step)
        parts = gradients(losses_of, learned, crops, config.crops_per_step, standing)
        values = whole_step(ranks, learned, parts)
        if not all(math.isfinite(value) for value in values.values()):
            raise TrainingDiverged(
                f"training diverged at step {step}: expected finite losses, got {values}; lower the learning rate"
            )
        nn.utils.clip_grad_norm_(learned, config.clip_norm)
        optimizer.step()
        average.update(min(config.ema_decay, (1 + step) / (10 + step)))
        standing.losses.append(sum(values.values()))
        standing.step = done = step + 1
        if ranks.leads:
            spent, here = time.monotonic() - started, done - first
            left, speed = spent * (config.steps - done) / here, here * config.crops_per_step / max(spent, 1e-9)
            on_progress(Progress(done, config.steps, standing.losses[-1], values, spent, left, speed))
        stop = ranks.tell(should_stop())
        if ranks.leads and (stop or done == config.steps or done % config.checkpoint_steps == 0):
            save_checkpoint(out / CHECKPOINT, identity, standing, model, optimizer, average.state)
            on_checkpoint(out / CHECKPOINT)
        if stop and done < config.steps:
            ranks.follow()  # nobody goes on before the checkpoint is written
            return None
    origin = provenance(config, data_hash(samples), device, ranks, about or {})
    return TrainedModel(
        weights_path=out / WEIGHTS,
        sha256=ranks.tell(write_weights(config, samples, average.state, origin, out) if ranks.leads else ""),
        steps=config.steps,
        loss=float(np.mean(standing.losses[-max(1, config.steps // 10) :])),
        seconds=time.monotonic() - started,
    )


def write_weights(
    config: TrainingConfig,
    samples: Sequence[TrainingSample],
    state: Mapping[str, Tensor],
    origin: Mapping[str, Any],
    out: Path,
) -> str:
    """Write the weights with their origin into `out`, whose decoded images go; the sha256 of the file."""
    sha256 = save_detector(out / WEIGHTS, config.detector, state, training=origin)
    for file in image_files(config, samples, out):
        file.unlink(missing_ok=True)
    return sha256


def drawer(
    config: TrainingConfig, samples: Sequence[TrainingSample], ranks: Ranks, out: Path, on_images: OnImages
) -> Callable[[int, Sequence[int]], list[SeededCrop]]:
    """What draws the crops of a step: those of the given indices. Images are decoded by the leading process only."""
    if ranks.world > config.crops_per_step:
        raise CellloopError(
            f"expected at most one process for each of a step's {config.crops_per_step} crops, got {ranks.world} "
            "processes; raise CELLLOOP_TRAIN_BATCH, or start fewer"
        )
    if not ranks.leads:
        ranks.follow()
    images = load_images(config, samples, out, on_images)
    if ranks.leads:
        ranks.follow()
    if config.trunk is not None:
        return ViewDraws(config, images, samples, config.trunk).draw
    return lambda step, share: draw_crops(config, images, step, share)


def whole_step(ranks: Ranks, learned: Sequence[nn.Parameter], parts: Mapping[str, Tensor]) -> dict[str, float]:
    """Add up gradients and losses of all processes; the step's losses by name."""
    for parameter in learned:
        if parameter.grad is None and ranks.world > 1:
            parameter.grad = torch.zeros_like(parameter)
    sums = torch.stack(list(parts.values()))
    ranks.add_up([*(parameter.grad for parameter in learned if parameter.grad is not None), sums])
    return dict(zip(parts, sums.tolist(), strict=True))
