"""SIGTERM, for real: what was begun is finished, nothing new is taken, and the process leaves with 0."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from al_loop import pulse
from al_loop.worker import Worker
from backend.credentials import load_credentials
from db import inbox
from db.session import Database
from scripts.processes import Child
from scripts.worker import worker
from tests.label_studio_fixture import free_port

BODY = b'{"action": "ANNOTATION_CREATED"}'

Start = Callable[..., Child]


@pytest.fixture
def start(tmp_path: Path, sqlite_url: str) -> Iterator[Start]:
    """Starts a command on an empty installation."""
    running: list[Child] = []

    def begin(*arguments: str) -> Child:
        environment = {
            "CELLLOOP_HOME": str(tmp_path / "home"),
            "CELLLOOP_DATABASE_URL": sqlite_url,
            "CELLLOOP_LABEL_STUDIO_URL": f"http://127.0.0.1:{free_port()}",
            "CELLLOOP_LOG_FORMAT": "json",
            "CELLLOOP_DRAIN_S": "0.5",
        }
        running.append(Child(arguments[0], list(arguments), environment, tmp_path / f"{arguments[0]}.log"))
        return running[-1]

    yield begin
    for child in running:
        child.stop()


def wait_for(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)


def status(url: str) -> int | None:
    """What this address answers with, None when nobody does."""
    try:
        return httpx.get(url, timeout=5).status_code
    except httpx.TransportError:
        return None


def test_a_server_finishes_what_it_has_and_takes_nothing_new(start: Start, tmp_path: Path, sqlite_url: str) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    server = start("serve", "--port", str(port))
    server.wait(lambda: status(f"{url}/health/ready") == 200, 60)
    secret = load_credentials(tmp_path / "home").webhook_secret
    with socket.create_connection(("127.0.0.1", port), timeout=30) as begun:
        head = f"POST /webhook HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {secret}\r\nContent-Length: {len(BODY)}\r\n"
        begun.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + BODY[:9])
        wait_for(lambda: status(f"{url}/health/live") == 200)  # answered after the first bytes were read
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: status(f"{url}/health/ready") == 503)
        wait_for(lambda: status(f"{url}/health/live") is None)
        assert server.process.poll() is None, "it waits for the request it has"
        begun.sendall(BODY[9:])
        assert begun.recv(100).startswith(b"HTTP/1.1 202")
    assert server.process.wait(30) == 0
    database = Database(sqlite_url)
    with database.session(read_only=True) as session:
        assert [event.action for event in inbox.unhandled(session)] == ["ANNOTATION_CREATED"]
    database.dispose()
    dashboard, *lines = server.log.read_text().splitlines()
    assert dashboard.startswith("dashboard")
    assert [json.loads(line)["message"] for line in lines][-1] == "server stopped"
    assert secret not in server.log.read_text()


def test_a_worker_ends_its_tick_and_leaves(
    tmp_path: Path, sqlite_url: str, monkeypatch: pytest.MonkeyPatch, root_logger: logging.Logger
) -> None:
    # In this process: importing torch anew takes longer than all of the rest.
    monkeypatch.setenv("CELLLOOP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CELLLOOP_DATABASE_URL", sqlite_url)
    done: list[str] = []

    def tick(_worker: Worker) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        done.append("ticked to the end")

    monkeypatch.setattr(Worker, "tick", tick)
    monkeypatch.setattr(pulse, "leave", lambda *_: done.append("left"))
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        worker("train,predict,sync")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert done == ["ticked to the end", "left"]
