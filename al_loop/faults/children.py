"""Processes of the installation: forked from one that has imported everything, so that a restart takes no seconds."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from backend.errors import CellloopError

# run(arguments, environment, log, control): the `cellloop` command as people run it, under `hooks.install(control)`.
Run = Callable[[Sequence[str], Mapping[str, str], str, str], None]
PRELOADED = ["al_loop.worker", "al_loop.train", "al_loop.faults.hooks", "al_loop.faults.stand_in"]


class Child:
    """One process, which may die and be started again under the same name."""

    def __init__(self, name: str, folder: Path, target: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        self.name, self.log, self.control = name, folder / f"{name}.log", folder / f"{name}.control.json"
        self._target, self._arguments = target, arguments
        self._process: Any = None
        self._armed: dict[str, Any] = {}

    @property
    def alive(self) -> bool:
        """Whether it runs now."""
        return self._process is not None and self._process.is_alive()

    @property
    def pid(self) -> int:
        """Of its present or last process."""
        return int(self._process.pid)

    def start(self) -> bool:
        """Start it unless it runs; whether it did not."""
        if self.alive:
            return False
        context = get_context("forkserver")
        self._process = context.Process(target=self._target, args=self._arguments, name=self.name, daemon=True)
        self._process.start()
        return True

    def arm(self, **fault: Any) -> None:
        """Write what is to happen inside it, beside what is armed already (`hooks.Control`)."""
        self._armed |= fault
        self._write()

    def disarm(self, *names: str) -> None:
        """Let this not happen any more; nothing at all when no name is given."""
        self._armed = {name: value for name, value in self._armed.items() if names and name not in names}
        self._write()

    def _write(self) -> None:
        fresh = self.control.with_suffix(".new")
        fresh.write_text(json.dumps(self._armed))
        os.replace(fresh, self.control)

    def kill(self) -> bool:
        """kill -9; whether it was alive."""
        was = self.alive
        if was:
            self._process.kill()
            self._process.join()
        return was

    def join(self, timeout_s: float) -> None:
        """Wait for its end."""
        self._process.join(timeout_s)

    def tail(self, characters: int = 100_000) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-characters:] if self.log.exists() else ""


def command(run: Run, name: str, folder: Path, arguments: Sequence[str], environment: Mapping[str, str]) -> Child:
    """A `cellloop` command as a child, not started yet."""
    log, control = folder / f"{name}.log", folder / f"{name}.control.json"
    return Child(name, folder, run, (list(arguments), dict(environment), str(log), str(control)))


def preload(modules: Sequence[str]) -> None:
    """Say what children begin with. One thread each: models this small only wait for a second one."""
    os.environ["OMP_NUM_THREADS"] = "1"
    get_context("forkserver").set_forkserver_preload([*PRELOADED, *modules])


def wait_until(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Look again and again until the condition holds. Raises CellloopError."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise CellloopError(f"{what}: expected within {timeout_s:.0f} s; the harness cannot go on")
        time.sleep(0.02)


def any_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
