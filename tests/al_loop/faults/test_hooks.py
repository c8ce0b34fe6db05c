"""Faults from inside a process: armed by its control file, exact to the effect."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]

PROGRAM = """
import os, sys, time
from pathlib import Path
from datetime import datetime, UTC
from sqlalchemy import text
from db import models
from db.session import make_engine
from al_loop.faults.hooks import install
folder = Path(sys.argv[1])
install(folder / "control.json")
print(round(time.time() - float(sys.argv[2])), round(models.now().timestamp() - float(sys.argv[2])), flush=True)
engine = make_engine(f"sqlite:///{folder / 'record.sqlite'}")
for number in range(3):
    (folder / "new").write_text("")
    with engine.begin() as connection:
        connection.execute(text(f"CREATE TABLE t{number} (a)"))
    os.replace(folder / "new", folder / f"file{number}")
"""


def run(folder: Path, **armed: object) -> tuple[int, str, set[str], set[str]]:
    """Exit status, what it printed, the files and the tables it left."""
    (folder / "control.json").write_text(json.dumps(armed))
    command = [sys.executable, "-c", PROGRAM, str(folder), str(time.time())]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    with sqlite3.connect(folder / "record.sqlite") as connection:
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    return done.returncode, done.stdout.strip(), {file.name for file in folder.glob("file*")}, tables


@pytest.mark.parametrize(
    ("at", "files", "tables"),
    [(3, {"file0"}, {"t0"}), (4, {"file0"}, {"t0", "t1"})],
    ids=["before a commit", "between a commit and a file"],
)
def test_it_dies_just_before_an_effect(tmp_path: Path, at: int, files: set[str], tables: set[str]) -> None:
    status, _, left, committed = run(tmp_path, die_at=at)
    assert (status, left, committed) == (-signal.SIGKILL, files, tables)


def test_unarmed_nothing_happens_and_clocks_jump(tmp_path: Path) -> None:
    status, printed, files, _ = run(tmp_path, clock_s=-3600.0)
    off = [int(word) for word in printed.split()]
    assert (status, files) == (0, {"file0", "file1", "file2"})
    assert all(-3600 <= seconds <= -3570 for seconds in off)
