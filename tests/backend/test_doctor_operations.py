"""What the doctor says of clocks and backups, without an installation."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from backend import doctor_operations
from backend.last_backup import last_backup
from db.models import now


def test_clocks_apart_are_told() -> None:
    assert doctor_operations.check_clock(now(), now()).state == "ok"
    told = doctor_operations.check_clock(now() - timedelta(minutes=5), now())
    assert (told.state, "5 min off" in told.found) == ("notice", True)


def test_a_backup_nobody_noted_is_none(tmp_path: Path) -> None:
    assert last_backup(tmp_path) is None
    (tmp_path / "last-backup").write_text("yesterday")
    assert doctor_operations.check_backup(last_backup(tmp_path), now()).state == "notice"
