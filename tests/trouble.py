"""What the tests of trouble share: a home of their own, commands in this process, a Label Studio that answers ill."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from al_loop.rendered import write_coco_folder
from backend.store import weights_file
from db import versions
from db.session import Database
from scripts import cli
from tests.label_studio_fixture import free_port

FIELDS = 12
TINY = {"TRAIN_STEPS": "2", "SHORT_SIDE": "128", "TRAIN_CROP": "96", "TRAIN_BATCH": "1", "DEVICE": "cpu"}
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def smears(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small rendered data set."""
    return write_coco_folder(tmp_path_factory.mktemp("smears"), FIELDS, 5, size=(128, 160), cells=8, infected=0.4)


@pytest.fixture(scope="session")
def trained(smears: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with smears, two versions of `infected` (ids 2 and 3, the first serves) and one of `all_cells` (1)."""
    home = tmp_path_factory.mktemp("trained") / "home"
    with pytest.MonkeyPatch.context() as patch:
        environment(patch, home)
        for command in (
            ["migrate"],
            ["import", str(smears), "--label-share", "0.5"],
            ["train", "--role", "all_cells"],
            ["train", "--role", "infected"],
            ["train", "--role", "infected", "--steps", "3"],
            ["preannotate"],
            ["rank"],
        ):
            with pytest.raises(SystemExit) as left:
                cli.main(command)
            assert not left.value.code, command
    return home


def environment(patch: pytest.MonkeyPatch, home: Path) -> None:
    """The settings of this file and no others."""
    for name in [name for name in os.environ if name.startswith("CELLLOOP_")]:
        patch.delenv(name)
    patch.setenv("CELLLOOP_HOME", str(home))
    patch.setenv("CELLLOOP_LABEL_STUDIO_URL", "http://127.0.0.1:9")  # the discard port: nobody
    patch.setenv("CELLLOOP_PORT", str(free_port()))
    for name, value in TINY.items():
        patch.setenv(f"CELLLOOP_{name}", value)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home that does not exist yet, and the environment that names it."""
    environment(monkeypatch, tmp_path / "home")
    return tmp_path / "home"


@pytest.fixture
def run(home: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run one command in this process: exit status, stdout, stderr."""

    def command(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            cli.main(arguments)
        printed = capsys.readouterr()
        return int(left.value.code or 0), printed.out, printed.err

    return command


@pytest.fixture
def installed(home: Path, trained: Path) -> Database:
    """The trained home, to be spoilt; its record."""
    shutil.copytree(trained, home)
    return Database(f"sqlite:///{home / 'cellloop.sqlite'}")


def assert_one_line(outcome: tuple[int, str, str], *words: str) -> None:
    """Exit code 1, nothing on stdout, one line on stderr with these words in it."""
    status, out, err = outcome
    assert (status, out) == (1, ""), err
    assert err.startswith("error: "), err
    assert err.count("\n") == 1, err
    assert [word for word in words if word not in err] == [], err


@contextmanager
def answering(answer: Callable[[str, str], tuple[int, Any]]) -> Iterator[str]:
    """A server that answers (method, path) with a status and JSON; its address."""

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            status, body = answer(self.command, self.path.split("?")[0])
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PATCH = do_DELETE = handle_any

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def damage(home: Path, database: Database, version: int, data: bytes | None) -> None:
    """Replace a version's weight file, or remove it."""
    with database.session(read_only=True) as session:
        path = home / "files" / weights_file(versions.get(session, version).weights_sha256)
    if data is None:
        path.unlink()
    else:
        path.write_bytes(data)
