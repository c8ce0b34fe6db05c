"""One round as faults see it: what may be broken, who acts meanwhile, and what was observed."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from al_loop.faults.diary import DiaryExpert
from al_loop.faults.installation import Installation
from al_loop.faults.violation import Violation
from db import runs
from db.models import TrainingRun

STRIKES_S = 20.0  # how long a fault may wait for its moment
SOON_S = 0.3


@dataclass
class Scene:
    """rng: everything that is drawn in this round. observed: what happened, for the table. wrong: what faults found."""

    installation: Installation
    expert: DiaryExpert
    rng: random.Random
    observed: list[tuple[str, str]] = field(default_factory=list)
    fault: str = ""
    wrong: list[Violation] = field(default_factory=list)

    def note(self, what: str, fault: str = "") -> None:
        """Something to tell of this round and this fault."""
        self.observed.append((fault or self.fault, what))

    def violate(self, kind: str, what: str) -> None:
        """Something is wrong that the invariants do not look at."""
        self.wrong.append(Violation(kind, what))

    def run(self) -> TrainingRun | None:
        """The training that is open now."""
        with self.installation.loop.database.session(read_only=True) as session:
            return next(iter(runs.all_open(session)), None)

    def outcome(self, run: TrainingRun | None) -> str:
        """What became of a training."""
        if run is None:
            return "no training was open"
        with self.installation.loop.database.session(read_only=True) as session:
            ended = runs.get(session, run.id)
            return f"training {ended.status.value}"

    def wait(self, condition: Callable[[], bool], timeout_s: float = STRIKES_S) -> bool:
        """Wait for the condition, but not for ever; whether it came."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    @contextmanager
    def soon(self, strike: Callable[[], object], most_s: float = SOON_S) -> Iterator[None]:
        """Let something happen at a random moment from now, whatever the block waits for, and before it ends."""
        timer = threading.Timer(self.rng.uniform(0, most_s), strike)
        timer.start()
        try:
            yield
        finally:
            timer.join()
