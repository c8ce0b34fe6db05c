"""The faults: each breaks something while its block runs, and mends it afterwards as a supervisor or a person would."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from al_loop.faults.scene import Scene


@dataclass(frozen=True)
class Fault:
    """name: as in the table. strike: the block. trains: needs a training under way. engine: only there; "" for both."""

    name: str
    strike: Callable[[Scene], AbstractContextManager[None]]
    trains: bool = False
    engine: str = ""


@contextmanager
def worker_killed(scene: Scene) -> Iterator[None]:
    """kill -9 of the worker at a random moment."""
    worker = scene.rng.choice(scene.installation.workers)
    yield
    run = scene.run()
    worker.kill()
    scene.note(f"killed while {run.stage or run.message!r}" if run else "killed while idle")


FAULTS: tuple[Fault, ...] = (Fault("worker killed", worker_killed, trains=True),)
