"""Starting and stopping a real Label Studio."""

from __future__ import annotations

import os
import socket
import stat
import time
from pathlib import Path

import pytest

from backend.errors import LabelStudioUnavailable, PortInUse
from backend.label_studio.server import LabelStudioConfig, LabelStudioServer, environment, group_alive, port_taken
from tests.label_studio_fixture import PASSWORD, TOKEN, RunningLabelStudio, free_port


def config(tmp_path: Path, script: str, port: int) -> LabelStudioConfig:
    """A configuration whose executable is this shell script."""
    executable = tmp_path / "label-studio"
    executable.write_text(f"#!/bin/sh\n{script}\n")
    executable.chmod(executable.stat().st_mode | stat.S_IXUSR)
    return LabelStudioConfig(executable, tmp_path / "home", "e@x.test", PASSWORD, TOKEN, port=port)


def test_restart_continues_quickly_with_the_same_data(label_studio: RunningLabelStudio) -> None:
    studio = label_studio.client()
    project = studio.create_project("survives a restart", "<View/>")
    pid = label_studio.server.pid
    assert pid is not None
    label_studio.server.stop()
    assert label_studio.server.pid is None
    assert not group_alive(pid)
    assert not port_taken("127.0.0.1", label_studio.server.config.port)
    with pytest.raises(LabelStudioUnavailable, match="cellloop label-studio start"):
        studio.whoami()
    began = time.monotonic()
    label_studio.server.start()
    assert time.monotonic() - began < 30  # 3 s on two idle cores
    assert studio.project(project.id).title == "survives a restart"
    studio.delete_project(project.id)


def test_secrets_are_in_the_environment_and_not_in_the_arguments(label_studio: RunningLabelStudio) -> None:
    pid = label_studio.server.pid
    arguments = Path(f"/proc/{pid}/cmdline").read_text()
    for secret in (TOKEN, PASSWORD):
        assert secret not in arguments
        assert secret not in repr(label_studio.server.config)
        assert secret not in label_studio.server.config.log.read_text(errors="replace")
    assert label_studio.server.config.home.joinpath("label-studio", "label_studio.sqlite3").is_file()


def test_it_listens_on_loopback_only(label_studio: RunningLabelStudio) -> None:
    port = f":{label_studio.server.config.port:04X}"
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = [row[1] for row in rows if row[3] == "0A" and row[1].endswith(port)]
    assert listening == ["0100007F" + port]


def test_a_taken_port_is_not_silently_replaced(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        server = LabelStudioServer(config(tmp_path, "sleep 60", other.getsockname()[1]))
        with pytest.raises(PortInUse, match="somebody listens"):
            server.start()
    assert server.pid is None


def test_a_server_that_dies_says_why(tmp_path: Path) -> None:
    server = LabelStudioServer(config(tmp_path, "echo no such table; exit 3", free_port()))
    with pytest.raises(LabelStudioUnavailable, match=r"(?s)status 3.*no such table"):
        server.start()


def test_a_first_start_begins_with_the_empty_database_and_later_ones_with_their_own(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    beside = config(tmp_path / "bin", "exit 3", free_port())
    beside.empty_database.write_bytes(b"migrated")
    for kept in (b"migrated", b"with labels"):
        with pytest.raises(LabelStudioUnavailable):
            LabelStudioServer(beside).start()
        assert beside.database.read_bytes() == kept
        beside.database.write_bytes(b"with labels")


def test_a_missing_executable_says_how_to_make_it(tmp_path: Path) -> None:
    missing = LabelStudioConfig(tmp_path / "nothing", tmp_path, "e@x.test", PASSWORD, TOKEN, port=free_port())
    with pytest.raises(LabelStudioUnavailable, match="pip install label-studio"):
        LabelStudioServer(missing).start()


def test_a_silent_server_is_stopped_with_its_children(tmp_path: Path) -> None:
    script = f"sleep 300 & echo $! > {tmp_path}/child; trap '' TERM; sleep 300"
    server = LabelStudioServer(config(tmp_path, script, free_port()))
    waited: list[float] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("backend.label_studio.server.STOP_S", 0.5)
        with pytest.raises(LabelStudioUnavailable, match="does not answer"):
            server.start(timeout_s=1.0, on_wait=waited.append)
    assert waited
    child = int((tmp_path / "child").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_foreign_settings_stay_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABEL_STUDIO_HOST", "http://elsewhere.test")
    monkeypatch.setenv("DJANGO_DB", "default")
    monkeypatch.setenv("POSTGRE_HOST", "db.test")
    monkeypatch.setenv("CELLLOOP_LABEL_STUDIO_TOKEN", "secret")
    made = environment(config(tmp_path, "", 1234))
    assert made["LABEL_STUDIO_HOST"] == "http://127.0.0.1:1234"
    assert not {"DJANGO_DB", "POSTGRE_HOST", "CELLLOOP_LABEL_STUDIO_TOKEN"} & set(made)
    assert made["PATH"] == os.environ["PATH"]
