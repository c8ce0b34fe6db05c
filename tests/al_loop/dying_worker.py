"""A worker in a process of its own that dies where it is told to: between a step's effect and its checkpoint."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from al_loop import evaluate, follow, promote, pulse, retrain
from al_loop.context import Loop
from al_loop.pulse import leave
from al_loop.worker import run_worker
from backend.credentials import load_credentials
from backend.far_store import open_store
from backend.settings import Settings
from db.session import Database

DIED = 42  # exit status
POINTS: dict[str, tuple[Any, str]] = {
    "evaluated": (evaluate, "evaluate_candidate"),
    "decided": (promote, "settle"),
}


def open_loop(home: Path, **settings: Any) -> Loop:
    """The installation at `home`, migrated already."""
    configured = Settings(home=home, **settings)
    store = open_store(configured.files, configured.files_url)
    return Loop(configured, Database(configured.database_url), store, load_credentials(configured.home))


def work(home: str, settings: dict[str, Any], point: str = "") -> None:
    """Run a worker until SIGTERM, or until it has just done what `point` names."""
    import torch

    torch.set_num_threads(1)
    if point:
        module, name = POINTS[point]
        setattr(module, name, dying(getattr(module, name)))
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    run_worker(open_loop(Path(home), **settings), stop)
    leave()


def work_among_others(home: str, settings: dict[str, Any]) -> None:
    """One of several workers: quick to notice that another is dead, and with small steps between checkpoints."""
    pulse.BEAT_S, pulse.DEAD_AFTER_S, follow.SHARD = 0.25, 5.0, 1
    training_config = retrain.training_config

    def often_saved(*args: Any) -> Any:
        return replace(training_config(*args), checkpoint_steps=3)

    retrain.training_config = often_saved
    work(home, settings)


@contextmanager
def process(target: Callable[..., None], *args: Any) -> Iterator[BaseProcess]:
    """This function in a process of its own; gone afterwards."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.al_loop.dying_worker", "al_loop.train"])  # one import for all of them
    started = context.Process(target=target, args=args)
    started.start()
    try:
        yield started
    finally:
        if started.is_alive():
            started.kill()
        started.join(30)


def dying(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, after which the process is gone as if by kill -9."""

    def last(*args: Any, **kwargs: Any) -> None:
        function(*args, **kwargs)
        os._exit(DIED)

    return last
