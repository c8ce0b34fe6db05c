"""One step of a training: gradients in as many parts as memory asks for, the optimizer's rates, the moving average."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from al_loop.train_batches import Shown
from al_loop.train_checkpoint import Standing
from al_loop.train_config import TrainingConfig
from backend.backbones import TRUNKS
from backend.errors import CellloopError, OutOfMemory

log = logging.getLogger("cellloop.train")

Losses = Callable[[Sequence[Shown]], dict[str, Tensor]]  # the detector's, mean over these crops
_NO_ROOM = ("not enough memory", "can't allocate memory", "out of memory")


def make_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """AdamW with a slower pretrained trunk, and no decay on biases and normalisation. What is frozen stays out."""
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
        fused=next(model.parameters()).device.type in ("cpu", "cuda", "mps") or None,
    )


def schedule(config: TrainingConfig, step: int) -> float:
    """Share of the learning rate at this step: linear warm-up, then a cosine down to a hundredth."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    way = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * way))


def set_rates(optimizer: torch.optim.Optimizer, config: TrainingConfig, step: int) -> None:
    """The learning rates of this step."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * schedule(config, step)


def gradients(
    losses_of: Losses, parameters: Sequence[nn.Parameter], crops: Sequence[Shown], total: int, standing: Standing
) -> dict[str, Tensor]:
    """Leave this process's share of the step's gradients in the parameters, and give its share of the losses.

    total: crops of the whole step, so that shares add up to the mean. When memory does not suffice, the step is
    repeated with half as many crops at a time, and later steps keep to that. Raises OutOfMemory when one is too many.
    """
    while True:
        for parameter in parameters:
            parameter.grad = None
        try:
            return _accumulated(losses_of, crops, total, standing.micro_batch)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            if standing.micro_batch == 1:
                raise OutOfMemory(
                    "training: expected memory for a single crop, there is not enough; choose smaller crops "
                    f"(CELLLOOP_TRAIN_CROP), or free some memory ({str(error).split(chr(10))[0]})"
                ) from error
        # Here, and not above, the error's frames and what they held are gone.
        standing.micro_batch = max(1, min(standing.micro_batch, len(crops)) // 2)
        log.warning("out of memory: going on with %d crops at a time; a step still has %d", standing.micro_batch, total)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _accumulated(losses_of: Losses, crops: Sequence[Shown], total: int, micro_batch: int) -> dict[str, Tensor]:
    values: dict[str, Tensor] = {}
    for start in range(0, len(crops), micro_batch):
        part = crops[start : start + micro_batch]
        losses = {name: value.float() * (len(part) / total) for name, value in losses_of(part).items()}
        torch.stack(list(losses.values())).sum().backward()
        for name, value in losses.items():
            values[name] = values.get(name, 0) + value.detach()
    return values


@contextmanager
def room_for_the_detector() -> Iterator[None]:
    """Raise OutOfMemory where memory ends outside of a step's crops: on loading, in the optimizer, on resuming."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, CellloopError) or not out_of_memory(error):
            raise
        raise OutOfMemory(
            "training: expected memory for the detector and its optimizer, there is not enough; stop what else uses "
            f"it (on a GPU, see nvidia-smi), or train elsewhere ({str(error).split(chr(10))[0]})"
        ) from error


def out_of_memory(error: BaseException) -> bool:
    """Whether the error says that memory ran out, on a GPU or on the CPU."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(part in str(error) for part in _NO_ROOM)


class MovingAverage:
    """Exponential moving average of a model's weights, counters copied. state: its tensors, by their names."""

    def __init__(self, model: nn.Module) -> None:
        live: dict[str, Any] = model.state_dict()
        self.state = {name: value.detach().clone() for name, value in live.items()}
        floating = [name for name, value in live.items() if value.is_floating_point()]
        self._pairs = ([self.state[name] for name in floating], [live[name] for name in floating])
        self._counters = [(self.state[name], live[name]) for name in live.keys() - set(floating)]

    @torch.no_grad()
    def update(self, decay: float) -> None:
        """Move one step towards the model's weights."""
        torch._foreach_lerp_(*self._pairs, 1 - decay)
        for average, value in self._counters:
            average.copy_(value)
