"""A training that is killed for good (SIGKILL) twice ends with the bytes of one that was left alone."""

from __future__ import annotations

import os
import random
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from al_loop.train import CHECKPOINT, Progress, train
from al_loop.train_checkpoint import Standing, save_checkpoint
from backend.errors import DiskFull
from tests.al_loop.tiny_training import TINY, two_fields
from tests.threads import one_thread

ROOT = Path(__file__).resolve().parents[2]


def train_until_killed(folder: Path, steps: int) -> list[int]:
    """Train in a process of its own and kill it once it has said `steps` steps; what it said."""
    command = [sys.executable, "-m", "tests.al_loop.kill_training", str(folder)]
    said: list[int] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(int(line))
            if len(said) == steps:
                process.kill()
    return said


def test_killed_twice_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    dice = random.Random(os.urandom(8))
    kills = (dice.choice([4, 5]), 1)  # once around the checkpoint of step 4, and soon again
    said = [train_until_killed(tmp_path, steps) for steps in kills]
    assert said[0][0] == 1, kills
    assert said[1][:1] in ([1], [5]), kills  # went on from the checkpoint, if the kill let it be written
    rest: list[Progress] = []
    with one_thread():
        samples = two_fields(tmp_path)
        resumed = train(TINY, samples, out=tmp_path / "run", on_progress=rest.append)
        whole = train(TINY, samples, out=tmp_path / "whole")
    assert resumed is not None
    assert whole is not None
    assert rest[-1].step == TINY.steps
    assert resumed.sha256 == whole.sha256, kills
    assert resumed.weights_path.read_bytes() == whole.weights_path.read_bytes()
    assert {file.name for file in (tmp_path / "run").iterdir()} >= {CHECKPOINT}
    assert not list((tmp_path / "run").glob("images-*")), "decoded images are not kept after the end"


def test_a_full_disk_is_called_by_its_name_and_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    model = torch.nn.Linear(600, 600)  # 1.4 MB
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    path = tmp_path / CHECKPOINT
    path.write_bytes(b"the last one")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, before[1]))
    try:
        with pytest.raises(DiskFull, match="expected room"):
            save_checkpoint(path, "any", Standing(1, 1), model, optimizer, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [file.name for file in tmp_path.iterdir()] == [CHECKPOINT]
    assert path.read_bytes() == b"the last one"
