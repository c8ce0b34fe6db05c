"""A retraining in several processes of this machine, one per GPU: the worker starts `torchrun` and waits.

The first process keeps the record, as the worker would have; the others train along (`train_distributed.py`). When the
worker dies, the record refuses what they say once another has taken the run over, and they end.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from al_loop.context import Loop
from al_loop.retrain import RunCancelled, retrain, take_snapshot, train_run
from al_loop.run_checkpoints import Checkpoints
from al_loop.train import WEIGHTS
from al_loop.train_distributed import joined
from backend.detect import pick_device
from backend.errors import TrainingBroken
from backend.store import sha256_of
from db import runs, versions

SHARE = "scripts.train_share"  # the command of one process
LOG = "processes.log"
CANCELLED = 3  # exit status of a process that was told to stop


def train_together(loop: Loop, run_id: int, worker_id: int, processes: int) -> int:
    """What `retrain` does, in so many processes; the candidate's id. They read the environment that we read.

    Raises RunCancelled, and TrainingBroken with what the processes said last.
    """
    folder = Checkpoints(loop, run_id, worker_id).bring()
    folder.mkdir(parents=True, exist_ok=True)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    with (folder / LOG).open("wb") as log:
        ended = subprocess.run(
            [*launcher, "-m", SHARE, str(run_id), str(worker_id)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ | _threads(processes), check=False,
        )  # fmt: skip
    with loop.database.session(read_only=True) as session:
        run = runs.get(session, run_id)
    if run.finished_at is not None:
        raise RunCancelled(f"training run {run_id} was {run.status.value}")
    if ended.returncode:
        raise TrainingBroken(f"training in {processes} processes ended early: {_last_error(folder / LOG)}")
    manifest = take_snapshot(loop, run_id)
    with loop.database.session(read_only=True) as session:
        version = versions.with_weights(session, manifest.role, sha256_of(folder / WEIGHTS), manifest.sha256)
    if version is None:
        raise TrainingBroken(f"run {run_id}: expected the version that its processes made, found none; retry the run")
    return version.id


def share(loop: Loop, run_id: int, worker_id: int) -> None:
    """This process's part of it. Raises what `retrain` raises."""
    with joined(pick_device(loop.settings.device)) as (ranks, _):
        if ranks.leads:
            retrain(loop, run_id, worker_id=worker_id)
        else:
            train_run(loop, run_id, worker_id=worker_id)


def _threads(processes: int) -> dict[str, str]:
    """Processes share the cores; torchrun would give each a single one."""
    return {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))}


def _last_error(log: Path) -> str:
    """What a process said of its end; without that, the last line."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    said = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (said or lines or ["they said nothing"])[-1][:300]
