"""The home folder: where everything of one installation lies."""

from __future__ import annotations

import os
from pathlib import Path

from backend.errors import HomeUnusable


def prepare_home(home: Path) -> None:
    """Make the folder if need be. Raises HomeUnusable when it cannot be made or written to."""
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HomeUnusable(
            f"{home}: expected a folder to keep everything in, cannot make it ({error.strerror}); "
            "set CELLLOOP_HOME to a folder of yours"
        ) from None
    if not os.access(home, os.W_OK | os.X_OK):
        raise HomeUnusable(f"{home}: expected a folder we may write to; set CELLLOOP_HOME to a folder of yours")
