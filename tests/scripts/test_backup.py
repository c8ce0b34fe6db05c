"""`cellloop backup` and `cellloop restore`: there and back from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from backend.last_backup import last_backup
from db import migrate
from db.session import Database
from scripts import cli
from tests.builders import add_image


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    """Exit status, and what was answered in JSON, or the error."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        cli.main([*arguments])
    status, printed = int(left.value.code or 0), capsys.readouterr()
    return status, printed.err if status else json.loads(printed.out)


def test_there_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    old, new, archive = tmp_path / "old", tmp_path / "new", str(tmp_path / "backup.zip")
    url = f"sqlite:///{old}/cellloop.sqlite"
    migrate.upgrade(url)
    with Database(url).session() as session:
        image = add_image(session)
    monkeypatch.setenv("CELLLOOP_HOME", str(old))
    status, error = run(capsys, "backup", archive, "--json")
    assert (status, error.count("\n")) == (1, 1)
    assert f"{image.file}: expected in the store, but it is missing" in error
    status, made = run(capsys, "backup", archive, "--json", "--no-files")
    assert last_backup(old).isoformat() == made["made_at"]  # type: ignore[union-attr]
    assert (status, made["engine"], made["files"], made["rows"]["images"]) == (0, "sqlite", 0, 1)
    status, error = run(capsys, "restore", archive)
    assert (status, "expected an empty database, got 1 rows in images" in error) == (1, True)
    monkeypatch.setenv("CELLLOOP_HOME", str(new))
    status, restored = run(capsys, "restore", archive, "--json")
    assert (status, restored["revision"], restored["failed_runs"]) == (0, migrate.head(), 0)
    assert restored["made_at"] == made["made_at"]
    with Database(f"sqlite:///{new}/cellloop.sqlite").session(read_only=True) as session:
        assert session.get_one(type(image), image.id).name == image.name
    status, error = run(capsys, "restore", str(tmp_path / "none.zip"))
    assert (status, "none.zip: No such file" in error) == (1, True)
