"""A training in a process of its own, to be killed: prints a line after each step."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from al_loop.train import Progress, train
from tests.al_loop.tiny_training import TINY, two_fields


def say(progress: Progress) -> None:
    print(progress.step, flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    train(TINY, two_fields(folder), out=folder / "run", on_progress=say)
