"""Two processes under torchrun learn what one learns, stop and resume together, and one of them keeps the record."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from al_loop.context import Loop
from al_loop.import_images import import_images
from al_loop.rendered import write_coco_folder
from al_loop.train import Progress, train
from al_loop.train_distributed import Ranks, current_ranks
from al_loop.train_together import train_together
from backend.checkpoints import load_weights
from backend.errors import TrainingBroken
from backend.store import weights_file
from db import images, runs, versions, workers
from db.migrate import upgrade
from db.models import RunStatus
from tests import builders
from tests.al_loop.dying_worker import open_loop
from tests.al_loop.rank_training import TOGETHER
from tests.al_loop.tiny_training import two_fields
from tests.threads import one_thread

ROOT = Path(__file__).resolve().parents[2]
SMALL = {"short_side": 96, "train_crop": 64, "train_batch": 2, "train_steps": 2, "device": "cpu"}


def torchrun(*arguments: object, **environment: str) -> None:
    """Run tests/al_loop/rank_training.py in two processes on this machine."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, "-m", "tests.al_loop.rank_training", *map(str, arguments)]
    variables = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    ended = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=500)
    assert ended.returncode == 0, ended.stderr[-3000:]


def test_two_processes_learn_what_one_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    loop = open_loop(home, **SMALL)
    upgrade(loop.settings.database_url)
    write_coco_folder(tmp_path / "source", 12, size=(96, 128), cells=6, infected=0.5)
    import_images(loop.database, loop.store, tmp_path / "source", label_share=0.5)
    named = {f"CELLLOOP_{name.upper()}": str(value) for name, value in (SMALL | {"home": home}).items()}
    torchrun(tmp_path, home, **named)

    first, second = (json.loads((tmp_path / f"seen-{rank}.json").read_text()) for rank in (0, 1))
    assert first["world"] == second["world"] == 2
    assert first["stopped"]
    assert second["stopped"], "the stop was asked for in the first process only"
    assert first["steps"] == [1, 2, 3], "two steps, a stop, and on from the checkpoint"
    assert second["steps"] == [], "only the first process reports"
    assert first["sha256"] == second["sha256"]
    seen: list[Progress] = []
    with one_thread():
        alone = train(TOGETHER, two_fields(tmp_path), out=tmp_path / "alone", on_progress=seen.append)
    assert alone is not None
    assert first["losses"] == pytest.approx([progress.loss for progress in seen], rel=2e-3)
    together, metadata = load_weights(tmp_path / "run" / "weights.safetensors", first["sha256"])
    assert metadata["training"]["environment"]["processes"] == 2
    expected, _ = load_weights(alone.weights_path)
    for name, value in expected.items():
        assert float((together[name].float() - value.float()).norm()) <= 0.01 * float(value.float().norm()) + 1e-3, name

    with loop.database.session(read_only=True) as session:
        [run], [version] = runs.runs(session), versions.versions(session)
        assert (run.status, run.version_id, version.status) == (RunStatus.succeeded, version.id, "active")
        assert version.environment["processes"] == 2
    load_weights(loop.store.path(weights_file(version.weights_sha256)), version.weights_sha256)
    for name, value in named.items():
        monkeypatch.setenv(name, value)
    assert_a_worker_trains_in_two_processes(loop)
    loop.database.dispose()


def assert_a_worker_trains_in_two_processes(loop: Loop) -> None:
    """After another answer, as `CELLLOOP_TRAIN_PROCESSES=2` has it. Of a dead worker, the processes end."""
    with loop.database.session() as session:
        builders.say(session, builders.add_cell(session, images.pool(session)[0]), "ring")
        worker_id = workers.register(session, "one", "host", 1, ["train"]).id
        run = runs.open_run(session, "infected", "person", {}, {})
        assert run is not None
        runs.take_up(session, run.id, worker_id)
    made = train_together(loop, run.id, worker_id, 2)
    with loop.database.session() as session:
        assert versions.get(session, made).environment["processes"] == 2
        assert runs.get(session, run.id).step == SMALL["train_steps"]
        workers.end(session, worker_id, "died")
    with pytest.raises(TrainingBroken, match="taken it over"):
        train_together(loop, run.id, worker_id, 2)


def test_every_crop_of_a_step_is_somebodys() -> None:
    shares = [list(Ranks(rank, 3).share(8)) for rank in range(3)]
    assert shares == [[0, 3, 6], [1, 4, 7], [2, 5]]
    alone = current_ranks()
    assert (alone.rank, alone.world, alone.leads, alone.tell("word")) == (0, 1, True, "word")
    alone.check_same(3, "a checkpoint at step")
