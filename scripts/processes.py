"""Child processes of the demonstration: started, watched, logged to a file, ended with everything below them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from backend.errors import CellloopError

STOP_S = 15.0
LOG_LINES = 8


class ChildDied(CellloopError):
    """A process we started ended by itself; the message holds the end of its log."""


class Child:
    """One `cellloop` command as a child in a process group of its own, so that Ctrl-C reaches it through us only."""

    def __init__(self, name: str, arguments: list[str], environment: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "scripts.cli", *arguments],
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def check(self) -> None:
        """Raises ChildDied when the process has ended with an error."""
        if self.process.poll() not in (None, 0):
            tail = self.log.read_text(errors="replace").splitlines()[-LOG_LINES:]
            raise ChildDied(f"{self.name} ended with exit code {self.process.returncode}: {' / '.join(tail)}")

    def wait(self, ready: Callable[[], bool], timeout_s: float) -> None:
        """Wait until `ready()`; raises ChildDied when the process ends before, or it takes too long."""
        deadline = time.monotonic() + timeout_s
        while not ready():
            self.check()
            if time.monotonic() > deadline:
                raise ChildDied(f"{self.name}: expected it to be ready within {timeout_s:.0f} s; see {self.log}")
            time.sleep(0.1)

    def stop(self) -> None:
        """Ask the whole group to end, then make it."""
        if self.process.poll() is not None:
            return
        os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
