"""Run by torchrun in two processes: a training that is stopped after two steps and then continued to its end.

Usage: torchrun ... rank_training.py FOLDER [HOME]; with HOME it ends with `cellloop train` there, as a user starts it.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch

from al_loop.train import Progress, train
from al_loop.train_config import TrainingConfig
from al_loop.train_distributed import joined
from scripts.cli import main
from tests.al_loop.tiny_training import TINY, two_fields

TOGETHER: TrainingConfig = replace(TINY, steps=3, batch_size=2, crop=64, checkpoint_steps=100)


def run(folder: Path, home: Path | None) -> None:
    """Train in `folder`; rank 0 writes what both saw to `seen-<rank>.json`."""
    torch.set_num_threads(1)
    with joined(torch.device("cpu")) as (ranks, _):
        own = folder / f"images-of-{ranks.rank}"
        own.mkdir()
        samples = two_fields(own)
        seen: list[Progress] = []
        stopped = train(
            TOGETHER, samples, out=folder / "run", on_progress=seen.append, should_stop=lambda: len(seen) > 1
        )
        trained = train(TOGETHER, samples, out=folder / "run", on_progress=seen.append)
        report = {
            "world": ranks.world,
            "stopped": stopped is None,
            "steps": [progress.step for progress in seen],
            "losses": [progress.loss for progress in seen],
            "sha256": trained.sha256 if trained else None,
        }
        (folder / f"seen-{ranks.rank}.json").write_text(json.dumps(report))
        if home is not None:
            main(["train", "--role", "infected", "--json"])


if __name__ == "__main__":
    run(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
