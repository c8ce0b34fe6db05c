"""Locks between processes that go with their holder, however it dies."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backend.errors import CellloopError


class Occupied(CellloopError):
    """Somebody else holds the lock, and we were not to wait."""


@contextmanager
def exclusive(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock file at `path` inside the block; threads of one process exclude each other as well.

    wait: until it is free. Otherwise raises Occupied when somebody holds it. The file stays behind, empty.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise Occupied(f"{path}: expected a free lock, somebody holds it; wait for them") from None
        yield


def is_held(path: Path) -> bool:
    """Whether somebody holds the lock file at `path` now. Makes nothing."""
    if not path.exists():
        return False
    try:
        with exclusive(path, wait=False):
            return False
    except Occupied:
        return True
