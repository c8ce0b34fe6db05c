"""What a fault is: it breaks something while its block runs, then mends it as a supervisor or person would."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from al_loop.faults.scene import Scene


@dataclass(frozen=True)
class Fault:
    """name: as in the table. strike: the block. trains: needs a training under way.

    engine: only with that database; "" for both. on: what it breaks; one round breaks nothing in two ways at once.
    """

    name: str
    strike: Callable[[Scene], AbstractContextManager[None]]
    trains: bool = False
    engine: str = ""
    on: str = ""
