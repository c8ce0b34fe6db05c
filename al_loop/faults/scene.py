"""One round as faults see it: what may be broken, who acts meanwhile, and what was observed."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from al_loop.faults.diary import DiaryExpert
from al_loop.faults.installation import Installation
from db import runs
from db.models import TrainingRun

STRIKES_S = 15.0  # how long a fault may wait for its moment


@dataclass
class Scene:
    """rng: everything that is drawn in this round. observed: what happened, for the table."""

    installation: Installation
    expert: DiaryExpert
    rng: random.Random
    observed: list[str] = field(default_factory=list)

    def note(self, what: str) -> None:
        """Something to tell of this round."""
        self.observed.append(what)

    def run(self) -> TrainingRun | None:
        """The training that is open now."""
        with self.installation.loop.database.session(read_only=True) as session:
            return next(iter(runs.all_open(session)), None)

    def wait(self, condition: Callable[[], bool], timeout_s: float = STRIKES_S) -> bool:
        """Wait for the condition, but not for ever; whether it came."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True
