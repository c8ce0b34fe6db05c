"""When a home was last backed up: a line in the home, written by `cellloop backup`, read by the doctor and /metrics."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from backend.store import replace_atomically


def note_backup(home: Path, made_at: datetime) -> None:
    """A backup of this home's record, as of this moment, has been written."""
    replace_atomically(_file(home), (made_at.isoformat().encode(),))


def last_backup(home: Path) -> datetime | None:
    """As of when the last backup is, None when there is none that we know of."""
    try:
        return datetime.fromisoformat(_file(home).read_text(encoding="utf-8").strip())
    except (OSError, ValueError):
        return None


def _file(home: Path) -> Path:
    return home / "last-backup"
