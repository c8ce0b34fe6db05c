"""Train one detector: a flat loop that can be killed at any step and goes on as if nothing had happened.

Everything random is drawn from (seed, step), never from what happened before, so a checkpoint needs no generator
states: after a resume, the same step sees the same crops. The last checkpoint stays in the folder; calling `train`
again after the end only returns the same weights again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from al_loop.crops import Augmentation, CachedImage, Crop, cache_image, choose_focus, cut
from al_loop.dataset import TrainingSample
from backend.detect import DetectorConfig, build_detector, save_detector
from backend.errors import NotEnoughData, TrainingDiverged
from backend.instances import role_classes

log = logging.getLogger("cellloop.train")

CHECKPOINT = "checkpoint.pt"
WEIGHTS = "weights.safetensors"
TRUNKS = ("backbone.trunk.", "backbone.module.body.")  # of the presets lite and resnet50


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that decides what comes out, beside the samples and the pretrained trunk."""

    detector: DetectorConfig = field(default_factory=DetectorConfig)
    steps: int = 300
    batch_size: int = 2
    crop: int = 384  # px at training size; 0: whole images. 384 holds about 15 cells and costs a third of a field
    rare_share: float = 0.5  # of the crops are centred on a rare class; 0.75 suits `infected`
    learning_rate: float = 1e-3  # AdamW, for pyramid and heads
    trunk_rate: float = 0.3  # the pretrained trunk learns at this share of it
    weight_decay: float = 1e-2
    warmup_steps: int = 20
    clip_norm: float = 5.0
    ema_decay: float = 0.98  # reached slowly, so that short trainings are not held back by their start
    augmentation: Augmentation = field(default_factory=Augmentation)
    seed: int = 0
    checkpoint_steps: int = 50
    bf16: bool | None = None  # None: on CUDA only

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Progress:
    """Where a training stands. loss: of this step; losses: its parts. seconds: in this process so far."""

    step: int
    steps: int
    loss: float
    losses: dict[str, float]
    seconds: float
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


def train(
    config: TrainingConfig,
    samples: Sequence[TrainingSample],
    *,
    out: Path,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
    device: torch.device | str = "cpu",
) -> TrainedModel | None:
    """Train a detector on the samples and write its weights into `out`; None when told to stop before the end.

    Goes on from the checkpoint in `out` if that stems from the same configuration and samples.
    Raises NotEnoughData without a single cell to learn, TrainingDiverged on a non-finite loss.
    """
    images = load_images(config, samples)
    device = torch.device(device)
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    model = build_detector(config.detector, pretrained=True).to(device, memory_format=torch.channels_last)
    model.train()
    optimizer = make_optimizer(model, config)
    average = {name: value.detach().clone() for name, value in model.state_dict().items()}
    identity = training_identity(config, samples)
    first, history = resume(out / CHECKPOINT, identity, model, optimizer, average, device)
    started = time.monotonic()
    for step in range(first, config.steps):
        torch.manual_seed(config.seed * 1_000_003 + step)  # the detector samples its anchors and proposals at random
        crops = draw_crops(config, images, step)
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * schedule(config, step)
        use_bf16 = device.type == "cuda" if config.bf16 is None else config.bf16
        with torch.autocast(device.type, torch.bfloat16, enabled=use_bf16):
            losses = model(*as_tensors(crops, device))
            loss = torch.stack([value.float() for value in losses.values()]).sum()
        values = {name: float(value.detach()) for name, value in losses.items()}
        if not math.isfinite(float(loss.detach())):
            raise TrainingDiverged(
                f"training diverged at step {step}: expected finite losses, got {values}; lower the learning rate"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        optimizer.step()
        update_average(average, model, min(config.ema_decay, (1 + step) / (10 + step)))
        history.append(float(loss.detach()))
        done = step + 1
        seconds = time.monotonic() - started
        speed = (done - first) * config.batch_size / max(seconds, 1e-9)
        on_progress(Progress(done, config.steps, history[-1], values, seconds, speed))
        stop = should_stop()
        if stop or done == config.steps or done % config.checkpoint_steps == 0:
            save_checkpoint(out / CHECKPOINT, identity, done, history, model, optimizer, average)
        if stop and done < config.steps:
            return None
    sha256 = save_detector(out / WEIGHTS, config.detector, average)
    return TrainedModel(
        weights_path=out / WEIGHTS,
        sha256=sha256,
        steps=config.steps,
        loss=float(np.mean(history[-max(1, config.steps // 10) :])),
        seconds=time.monotonic() - started,
    )


def load_images(config: TrainingConfig, samples: Sequence[TrainingSample]) -> list[CachedImage]:
    """All samples decoded at training size. Raises NotEnoughData when there is no cell of the role in them."""
    classes = role_classes(config.detector.role)
    detector = config.detector
    images = [cache_image(sample, detector) for sample in samples]
    if not any(len(image.labels) for image in images):
        raise NotEnoughData(
            f"training {detector.role}: expected at least one labelled cell of {', '.join(classes)}, "
            f"got none in {len(samples)} images: review or import some first"
        )
    return images


def draw_crops(config: TrainingConfig, images: Sequence[CachedImage], step: int) -> list[Crop]:
    """The crops of one step: a function of (seed, step) alone."""
    rng = np.random.default_rng([config.seed, step])
    common = 1 if role_classes(config.detector.role)[0] == "red blood cell" else None
    crops = []
    for _ in range(config.batch_size):
        focus = choose_focus(images, rng, common=common, rare_share=config.rare_share)
        crops.append(cut(images[focus.image], focus, config.crop, config.augmentation, rng))
    return crops


def as_tensors(crops: Sequence[Crop], device: torch.device) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Crops as torchvision's detectors take them: (3, h, w) float32 in [0, 1], and one target per image."""
    images = [torch.from_numpy(crop.pixels).permute(2, 0, 1).to(device).float() / 255 for crop in crops]
    targets = [
        {
            "boxes": torch.from_numpy(crop.boxes).to(device),
            "labels": torch.from_numpy(crop.labels).to(device),
            "masks": torch.from_numpy(crop.masks).to(device),
            "ignore_boxes": torch.from_numpy(crop.ignore).to(device),
        }
        for crop in crops
    ]
    return images, targets


def make_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """AdamW with a slower pretrained trunk, and no decay on biases and normalisation."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((name.startswith(TRUNKS), parameter.ndim > 1), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "initial_lr": config.learning_rate * (config.trunk_rate if in_trunk else 1.0),
                "weight_decay": config.weight_decay if decays else 0.0,
            }
            for (in_trunk, decays), parameters in groups.items()
        ],
        lr=config.learning_rate,
    )


def schedule(config: TrainingConfig, step: int) -> float:
    """Share of the learning rate at this step: linear warm-up, then a cosine down to a hundredth."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    way = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * way))


@torch.no_grad()
def update_average(average: dict[str, Tensor], model: nn.Module, decay: float) -> None:
    """Move the exponential moving average of the weights one step; counters are copied."""
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            average[name].lerp_(value, 1 - decay)
        else:
            average[name].copy_(value)


def training_identity(config: TrainingConfig, samples: Sequence[TrainingSample]) -> str:
    """sha256 over everything that decides the result; a checkpoint of another training is not resumed."""
    digest = hashlib.sha256(json.dumps(config.to_json(), sort_keys=True).encode())
    for sample in samples:
        digest.update(sample.sha256.encode())
        digest.update(sample.boxes.tobytes())
        digest.update("|".join(sample.labels).encode())
        digest.update("|".join(sample.mask_sources).encode())
        digest.update(sample.ignore_boxes.tobytes())
    return digest.hexdigest()


def save_checkpoint(
    path: Path,
    identity: str,
    step: int,
    history: list[float],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: dict[str, Tensor],
) -> None:
    """Write all that a resume needs; whole or not at all."""
    state = {
        "identity": identity,
        "step": step,
        "history": history,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "average": average,
    }
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def resume(
    path: Path,
    identity: str,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: dict[str, Tensor],
    device: torch.device,
) -> tuple[int, list[float]]:
    """Load the checkpoint if it is this training's; returns the step to go on with and the losses so far."""
    if not path.exists():
        return 0, []
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # damaged bytes make the unpickler fail in any way it can
        log.warning("%s: expected a checkpoint, cannot read it (%s); starting over", path, str(error).split("\n")[0])
        return 0, []
    if state["identity"] != identity:
        return 0, []
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    for name, value in state["average"].items():
        average[name].copy_(value)
    return int(state["step"]), list(state["history"])
