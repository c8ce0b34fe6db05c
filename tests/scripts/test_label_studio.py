"""`cellloop label-studio start` as a process of its own, with a stand-in for Label Studio's executable; its errors."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import cli, composition

# Answers /health like Label Studio, on the port it was told, after noting its process id.
PROGRAM = """#!{python}
import http.server, os, pathlib, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{{"status": "UP"}}')

pathlib.Path("pid").write_text(str(os.getpid()))
http.server.HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def program(tmp_path: Path) -> Path:
    file = tmp_path / "bin" / "label-studio"
    file.parent.mkdir()
    file.write_text(PROGRAM.format(python=sys.executable))
    file.chmod(0o755)
    return file


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("ask", [signal.SIGINT, signal.SIGTERM])
def test_start_stays_until_asked_and_takes_its_child_along(tmp_path: Path, program: Path, ask: signal.Signals) -> None:
    port, home = free_port(), tmp_path / "home"
    environment = {"CELLLOOP_HOME": str(home), "CELLLOOP_LABEL_STUDIO_URL": f"http://127.0.0.1:{port}"}
    # The program of the PATH stands in only where there is no .venv-label-studio: say which one.
    code = (
        "import pathlib; from scripts import cli, composition; "
        f"composition.label_studio_program = lambda: pathlib.Path({str(program)!r}); "
        "cli.main(['label-studio', 'start'])"
    )
    command = [sys.executable, "-u", "-c", code]
    with subprocess.Popen(
        command, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as started:
        assert started.stdout is not None
        assert f"http://127.0.0.1:{port} as expert@cellloop.local" in started.stdout.readline()
        assert "credentials.json" in started.stdout.readline()
        child = int((home / "label-studio" / "pid").read_text())
        assert alive(child)
        started.send_signal(ask)
        printed, errors = started.communicate(timeout=30)
    assert (started.returncode, printed, errors) == (0, "stopping Label Studio\n", "")
    assert not alive(child)


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as left:
        cli.main(arguments)
    assert left.value.code == 1
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert printed.count("\n") == 1
    return printed


def test_start_says_what_is_in_the_way(
    tmp_path: Path, program: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CELLLOOP_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(composition, "label_studio_program", lambda: None)
    assert "not installed" in fails(capsys, "label-studio", "start")
    monkeypatch.setattr(composition, "label_studio_program", lambda: program)
    monkeypatch.setenv("CELLLOOP_LABEL_STUDIO_URL", "https://labels.example.org")
    assert "labels.example.org" in fails(capsys, "label-studio", "start")
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        taken = holder.getsockname()[1]
        monkeypatch.setenv("CELLLOOP_LABEL_STUDIO_URL", f"http://127.0.0.1:{taken}")
        assert str(taken) in fails(capsys, "label-studio", "start")


def test_connect_to_nobody_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CELLLOOP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CELLLOOP_LABEL_STUDIO_URL", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(SystemExit):
        cli.main(["migrate"])
    capsys.readouterr()
    assert "cannot be reached" in fails(capsys, "label-studio", "connect")
