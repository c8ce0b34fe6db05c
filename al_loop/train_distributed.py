"""Several processes that train one detector: each takes its share of a step's crops, and gradients are summed.

Started by `torchrun`, one process per GPU. Gradients go round in one message after a process has finished its share.
DistributedDataParallel would send them while the backward pass still runs, which gains little for a detector of a few
million weights, and would leave all others waiting when one process runs out of memory and repeats its share.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from backend.errors import CellloopError

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process's place among those that train together; alone: rank 0 of 1. Rank 0 leads: it alone writes."""

    rank: int = 0
    world: int = 1

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def share(self, count: int) -> range:
        """Which of a step's `count` crops are this process's."""
        return range(self.rank, count, self.world)

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes, in one message; all floating, on one device."""
        if self.world == 1 or not tensors:
            return
        message = torch.cat([tensor.detach().reshape(-1).float() for tensor in tensors])
        dist.all_reduce(message)
        for tensor, part in zip(tensors, message.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.detach().copy_(part.reshape(tensor.shape))

    def tell(self, value: T) -> T:
        """Rank 0's value, in every process. Waits for all."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def follow(self) -> None:
        """Every process but the leading one waits until that one has come here as well."""
        self.tell(None)

    def check_same(self, value: object, what: str) -> None:
        """Raises CellloopError in a process whose value is not rank 0's."""
        leading = self.tell(value)
        if leading != value:
            raise CellloopError(
                f"process {self.rank} of {self.world}: expected {what} {leading}, as process 0 has, got {value}; "
                "all processes must see the same home folder"
            )


def current_ranks() -> Ranks:
    """This process's place; alone unless inside `joined` under torchrun."""
    if dist.is_available() and dist.is_initialized():
        return Ranks(dist.get_rank(), dist.get_world_size())
    return Ranks()


@contextmanager
def joined(device: torch.device) -> Iterator[tuple[Ranks, torch.device]]:
    """Join the processes that torchrun started, if it did; this process's place and its own device.

    CUDA talks through NCCL, one GPU per process; anything else through gloo. Inside another `joined` nothing happens.
    """
    if not dist.is_available() or not dist.is_torchelastic_launched():
        yield Ranks(), device
        return
    if device.type == "cuda":
        device = torch.device("cuda", dist.get_node_local_rank())
        torch.cuda.set_device(device)
    if dist.is_initialized():
        yield current_ranks(), device
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield current_ranks(), device
    finally:
        dist.destroy_process_group()
