"""scripts/environment.sh with a stand-in Python: when it installs, when it does not, and when it starts afresh."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.tree import ROOT

# Answers the version check and the fingerprint like a real Python, "makes" an environment, and logs every pip call.
PYTHON = """#!/bin/sh
if [ "$1 $2" = "-m venv" ]; then
  mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && echo "VIRTUAL_ENV=$3" >"$3/bin/activate" && echo venv >>"$LOG"
elif [ "$1 $2" = "-m pip" ]; then
  echo pip >>"$LOG"
  exit "${PIP_STATUS:-0}"
else
  exec "$REAL" "$@"
fi
"""


class Checkout:
    """A folder with the files that environment.sh reads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        (folder / "pyproject.toml").write_text("[project]\n")
        (folder / "constraints.txt").write_text("a==1\n")
        python = folder / "python"
        python.write_text(PYTHON)
        python.chmod(0o755)

    def make(self, **extra: str) -> tuple[int, list[str], str]:
        """Run make_environment: its exit status, what it called, and what it printed."""
        self.log.write_text("")
        environment = {
            "PATH": os.environ["PATH"],
            "CELLLOOP_PYTHON": str(self.folder / "python"),
            "REAL": sys.executable,
            "LOG": str(self.log),
        }
        command = (
            f"set -euo pipefail; source {ROOT}/scripts/environment.sh; make_environment .venv constraints.txt thing"
        )
        ran = subprocess.run(
            ["bash", "-c", command], cwd=self.folder, env=environment | extra, capture_output=True, text=True
        )
        return ran.returncode, self.log.read_text().split(), ran.stdout + ran.stderr


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_environment_is_made_once(checkout: Checkout) -> None:
    assert checkout.make()[:2] == (0, ["venv", "pip", "pip"])
    assert checkout.make()[:2] == (0, [])


@pytest.mark.parametrize("file", ["constraints.txt", "pyproject.toml"])
def test_environment_is_brought_up_to_date_in_place(checkout: Checkout, file: str) -> None:
    checkout.make()
    (checkout.folder / ".venv/kept").touch()
    (checkout.folder / file).write_text("changed = 1\n")
    assert checkout.make()[:2] == (0, ["pip", "pip"])
    assert (checkout.folder / ".venv/kept").exists()
    assert checkout.make()[:2] == (0, [])


def test_interrupted_environment_is_made_again(checkout: Checkout) -> None:
    status, _, printed = checkout.make(PIP_STATUS="1")
    assert status == 1
    assert "run the same command again" in printed
    (checkout.folder / ".venv/debris").touch()
    assert checkout.make()[:2] == (0, ["venv", "pip", "pip"])
    assert not (checkout.folder / ".venv/debris").exists()


def test_moved_environment_is_made_again(checkout: Checkout, tmp_path_factory: pytest.TempPathFactory) -> None:
    checkout.make()
    moved = tmp_path_factory.mktemp("moved") / "checkout"
    checkout.folder.rename(moved)
    assert Checkout(moved).make()[:2] == (0, ["venv", "pip", "pip"])


def test_missing_python_is_said_in_one_line(checkout: Checkout) -> None:
    fake = checkout.folder / "bin"
    fake.mkdir()
    for name in ("python3", "python3.11", "python3.12"):
        (fake / name).write_text("#!/bin/sh\nexit 1\n")
        (fake / name).chmod(0o755)
    status, called, printed = checkout.make(PATH=f"{fake}:{os.environ['PATH']}", CELLLOOP_PYTHON="")
    assert status == 1
    assert called == []
    assert "Python 3.11 or 3.12 is needed" in printed


def need_chromium(folder: Path, user: int, apt_get: bool, **extra: str) -> tuple[int, str]:
    """Run need_chromium on a machine without Chromium, as this user, with a stand-in apt-get or none."""
    stand_ins = {"id": f"echo {user}"} | ({"apt-get": 'echo "apt-get $*"'} if apt_get else {})
    for name, body in stand_ins.items():
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)
    command = f"set -euo pipefail; source {ROOT}/scripts/environment.sh; need_chromium"
    bash = shutil.which("bash") or "bash"
    ran = subprocess.run(
        [bash, "-c", command], env={"PATH": str(folder)} | extra, capture_output=True, text=True, check=False
    )
    return ran.returncode, ran.stdout + ran.stderr


def test_chromium_is_installed_where_we_may(tmp_path: Path) -> None:
    status, printed = need_chromium(tmp_path, user=0, apt_get=True)
    assert status == 0
    assert "apt-get update" in printed


@pytest.mark.parametrize(("user", "apt_get"), [(1000, True), (0, False)])
def test_chromium_is_asked_for_where_we_may_not(tmp_path: Path, user: int, apt_get: bool) -> None:
    status, printed = need_chromium(tmp_path, user, apt_get)
    assert status == 0
    assert "apt-get install chromium" in printed
    status, printed = need_chromium(tmp_path, user, apt_get, CI="true")
    assert status == 1
    assert "Chromium is missing" in printed


@pytest.mark.parametrize("script", ["scripts/environment.sh", "scripts/test.sh", "scripts/demo.sh", ".ci/run"])
def test_shell_script_parses(script: str) -> None:
    assert subprocess.run(["bash", "-n", ROOT / script]).returncode == 0
