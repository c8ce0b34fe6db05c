"""Where a training stands, on disk: whole or not at all."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from backend.store import whole_or_absent

log = logging.getLogger("cellloop.train")


@dataclass
class Standing:
    """How far a training is. step: steps done; losses: of each; micro_batch: crops that fit into memory at a time."""

    step: int
    micro_batch: int
    losses: list[float] = field(default_factory=list)


def save_checkpoint(
    path: Path,
    identity: str,
    standing: Standing,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: dict[str, Tensor],
) -> None:
    """Write all that a resume needs. Raises DiskFull."""
    state = {
        "identity": identity,
        "step": standing.step,
        "micro_batch": standing.micro_batch,
        "history": standing.losses,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "average": average,
    }
    with whole_or_absent(path) as file:
        torch.save(state, file)


def resume(
    path: Path,
    identity: str,
    micro_batch: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: dict[str, Tensor],
    device: torch.device,
) -> Standing:
    """Load the checkpoint if it is this training's; where to go on, the start with `micro_batch` if there is none."""
    beginning = Standing(0, micro_batch)
    if not path.exists():
        return beginning
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # damaged bytes make the unpickler fail in any way it can
        log.warning("%s: expected a checkpoint, cannot read it (%s); starting over", path, str(error).split("\n")[0])
        return beginning
    if state["identity"] != identity:
        return beginning
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    for name, value in state["average"].items():
        average[name].copy_(value)
    log.info("the training goes on at step %d", state["step"])
    return Standing(int(state["step"]), int(state["micro_batch"]), list(state["history"]))
