"""The demonstration as a new user starts it: once through to a decision, then again until Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from backend.label_studio.server import port_taken
from tests.label_studio_fixture import executable, free_port
from tests.story import REPOSITORY

TINY = {
    "TRAIN_STEPS": "3",
    "SHORT_SIDE": "128",
    "TRAIN_CROP": "96",
    "RETRAIN_AFTER": "4",
    "GATE_DELTA": "1",
    "GATE_MOST_WRONG": "1",
}


def demo(home: Path, *arguments: str) -> subprocess.Popen[str]:
    """A demonstration in this home, with detectors trained for a moment."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CELLLOOP_")}
    settings = {"CELLLOOP_HOME": str(home), **{f"CELLLOOP_{name}": value for name, value in TINY.items()}}
    return subprocess.Popen(
        [sys.executable, "-m", "scripts.cli", "demo", *arguments],
        cwd=REPOSITORY, env=clean | settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


@pytest.mark.label_studio
def test_one_turn_then_a_second_start_and_ctrl_c(tmp_path: Path) -> None:
    assert executable().is_file()
    ports = ("--port", str(free_port()), "--label-studio-port", str(free_port()))
    once = demo(tmp_path, *ports, "--expert", "auto", "--once")
    said, _ = once.communicate(timeout=500)
    assert once.returncode == 0, said
    for what in ("images reviewed", "labels in SQL", "new model", "gate", "pushed to Label Studio"):
        assert what in said, said
    assert oct((tmp_path / "credentials.json").stat().st_mode & 0o777) == "0o600"
    kept = json.loads((tmp_path / "ports.json").read_text())
    assert not any(port_taken("127.0.0.1", port) for port in kept.values()), "every process was stopped"

    again = demo(tmp_path)
    lines = []
    assert again.stdout is not None
    deadline = time.monotonic() + 200
    for line in again.stdout:
        lines.append(line)
        if "Ctrl-C" in line or time.monotonic() > deadline:
            break
    said = "".join(lines)
    assert "Ctrl-C" in said, said
    assert "importing" not in said
    assert "training" not in said
    assert all(port_taken("127.0.0.1", port) for port in kept.values()), "the same addresses as before"
    again.send_signal(signal.SIGINT)
    rest, _ = again.communicate(timeout=60)
    assert again.returncode == 0, rest
    assert not any(port_taken("127.0.0.1", port) for port in kept.values()), "Ctrl-C ends what was started"
