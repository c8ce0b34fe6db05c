"""Bad input and trouble, as a user meets it: one clear line that says what to do, exit code 1, and nothing else spoilt.

Commands run in this process on a home of their own. Label Studio is a small server here that refuses, fails or
answers as little as a command needs; what the real one does is asked elsewhere.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from al_loop import jobs
from al_loop.rendered import write_coco_folder
from al_loop.worker import Worker
from backend.label_studio.label_config import default_config
from backend.store import weights_file
from db import images, labels, predictions, projects, reviews, runs, versions
from db.models import RunStatus, VersionStatus
from db.session import Database
from scripts import cli, composition
from tests.label_studio_fixture import free_port

FIELDS = 12
TINY = {"TRAIN_STEPS": "2", "SHORT_SIDE": "128", "TRAIN_CROP": "96", "TRAIN_BATCH": "1", "DEVICE": "cpu"}
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def smears(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small rendered data set."""
    return write_coco_folder(tmp_path_factory.mktemp("smears"), FIELDS, 5, size=(128, 160), cells=8, infected=0.4)


@pytest.fixture(scope="module")
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
def label_studio(answer: Callable[[str, str], tuple[int, Any]]) -> Iterator[str]:
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


def huge_png() -> bytes:
    """A sound PNG of 20,000 x 20,000 px in 50 kB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    squeeze = zlib.compressobj(9)
    rows = b"".join(squeeze.compress(bytes(2501)) for _ in range(20_000)) + squeeze.flush()
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


# --- images and annotations ---------------------------------------------------------------------------------


def test_bad_images_and_records_are_counted_and_the_rest_goes_in(run: Run, smears: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    shutil.copytree(smears, bad)
    document = json.loads((bad / "annotations.json").read_text())
    names = [image["file_name"] for image in document["images"]]
    whole = (bad / "images" / names[0]).read_bytes()
    (bad / "images" / names[0]).write_bytes(whole[: len(whole) // 2])
    (bad / "images" / names[1]).write_text("this is no image")
    (bad / "images" / names[2]).write_bytes(huge_png())
    document["images"][2] |= {"width": 20_000, "height": 20_000}
    (bad / "images" / names[3]).unlink()
    document["categories"].append({"id": 99, "name": "martian"})
    fifth = [entry for entry in document["annotations"] if entry["image_id"] == 5]
    fifth[0]["category_id"] = 99
    fifth[1]["bbox"] = [1, 2, "x", 3]
    document["images"].append({"id": 500, "file_name": "../../secret.png", "width": 9, "height": 9})
    (bad / "annotations.json").write_text(json.dumps(document))

    run("migrate")
    status, out, _ = run("import", str(bad), "--json")
    report = json.loads(out)
    assert status == 0
    assert sum(report["added"].values()) == FIELDS - 4
    assert report["problems"]["unreadable image"] == 3
    assert report["problems"]["missing image"] == 2
    assert report["unknown_categories"] == {"martian": 1}
    told = " ".join(report["examples"]["unreadable image"])
    for words in ("ends too early", "expected an image", "at most 40 megapixels"):
        assert words in told
    # Mended and imported again, what was left out comes in, and the rest is not doubled.
    report = json.loads(run("import", str(smears), "--json")[1])
    assert (sum(report["added"].values()), report["already_there"]) == (4, FIELDS - 4)


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "nothing there"), ({}, "BBBC041, IML or COCO"), ({"training.json": '{"a": ['}, "training.json is no JSON")],
    ids=["absent", "empty", "damaged"],
)
def test_a_folder_that_is_no_data_set(run: Run, tmp_path: Path, content: dict[str, str] | None, words: str) -> None:
    source = tmp_path / "source"
    if content is not None:
        source.mkdir()
        for name, text in content.items():
            (source / name).write_text(text)
    run("migrate")
    assert_one_line(run("import", str(source)), str(source), words)


def test_a_demonstration_of_nothing_starts_nothing(run: Run, home: Path, tmp_path: Path) -> None:
    assert_one_line(run("demo", "--data", str(tmp_path / "absent")), "--data", "is not there")
    assert not home.exists()


# --- before there is anything -------------------------------------------------------------------------------

EVERYTHING = ("preannotate", "rank", "push", "serve", "worker", "sync", "retrain", "evaluate", "rollback")


@pytest.mark.parametrize("verb", EVERYTHING)
def test_before_migrating(run: Run, verb: str) -> None:
    assert_one_line(run(verb), "cellloop migrate")


def test_before_training(run: Run, home: Path) -> None:
    run("migrate")
    for verb in ("preannotate", "rank", "evaluate"):
        assert_one_line(run(verb), "cellloop train --role")
    for verb in ("push", "sync"):
        assert_one_line(run(verb), "cellloop label-studio connect")
    assert_one_line(run("train", "--role", "infected"), "import labels or review some images first")
    with Database(f"sqlite:///{home / 'cellloop.sqlite'}").session(read_only=True) as session:
        assert [found.status for found in runs.runs(session)] == [RunStatus.failed], "the next training may begin"


# --- versions -----------------------------------------------------------------------------------------------


def serving(database: Database) -> int:
    with database.session(read_only=True) as session:
        version = versions.active(session, "infected")
    assert version is not None
    return version.id


def damage(home: Path, database: Database, version: int, data: bytes | None) -> None:
    """Replace a version's weight file, or remove it."""
    with database.session(read_only=True) as session:
        path = home / "files" / weights_file(versions.get(session, version).weights_sha256)
    if data is None:
        path.unlink()
    else:
        path.write_bytes(data)


def test_promote_and_roll_back(run: Run, installed: Database) -> None:
    assert_one_line(run("promote", "77"), "77", "3 (infected, candidate)")
    assert_one_line(run("promote", "2"), "serves already")
    assert_one_line(run("rollback"), "expected a version that the active one replaced")
    assert json.loads(run("promote", "3", "--json")[1])["replaced"] == 2
    assert serving(installed) == 3
    with installed.session(read_only=True) as session:
        pair = versions.active_pair(session)
    assert pair is not None
    assert pair.fusion, "the new pair's fusion is fitted before it predicts"
    assert json.loads(run("rollback", "--json")[1]) == {"role": "infected", "active": 2, "replaced": 3}
    assert_one_line(run("rollback"), "nothing changed")
    assert serving(installed) == 2


@pytest.mark.parametrize("data", [b"not the weights", None], ids=["damaged", "missing"])
def test_damaged_weights_are_never_promoted(run: Run, home: Path, installed: Database, data: bytes | None) -> None:
    damage(home, installed, 3, data)
    assert_one_line(run("promote", "3"), ".safetensors")
    with installed.session(read_only=True) as session:
        assert versions.get(session, 3).status is VersionStatus.candidate
    assert serving(installed) == 2


def test_damaged_weights_are_not_rolled_back_to(run: Run, home: Path, installed: Database) -> None:
    run("promote", "3")
    damage(home, installed, 2, b"")
    assert_one_line(run("rollback"), ".safetensors", "restore")
    assert serving(installed) == 3


def test_a_damaged_checkpoint_starts_over(run: Run, home: Path, installed: Database) -> None:
    folder = home / "runs" / "4"
    folder.mkdir(parents=True)
    (folder / "checkpoint.pt").write_bytes(b"half of it")
    status, out, _ = run("train", "--role", "infected", "--steps", "4", "--json")
    assert status == 0
    assert json.loads(out) == {"version": 4, "role": "infected", "status": "candidate"}


def test_a_retraining_nobody_would_do_is_not_waited_for(run: Run, home: Path, installed: Database) -> None:
    assert_one_line(run("retrain"), "cellloop worker", "--here")
    assert run("retrain", "--no-wait")[0] == 0
    assert_one_line(run("retrain", "--no-wait"), "is open")
    assert_one_line(run("train", "--role", "infected"), "cellloop worker")
    with jobs.sole_worker(home):
        assert_one_line(run("retrain", "--here"), "leave --here out")
        assert_one_line(run("worker"), "expected no other worker")


# --- this machine -------------------------------------------------------------------------------------------


def test_a_port_in_use(run: Run, installed: Database) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        assert_one_line(run("serve", "--port", port), port, "CELLLOOP_PORT")
        assert_one_line(run("demo", "--port", port), port)


def test_secrets_that_others_can_read(run: Run, home: Path, installed: Database) -> None:
    (home / "credentials.json").chmod(0o644)
    for command in (["rank"], ["serve"], ["worker"], ["label-studio", "connect"]):
        assert_one_line(run(*command), "chmod 600")


@pytest.mark.parametrize("command", [["migrate"], ["rank"], ["serve"], ["worker"], ["demo"], ["label-studio", "start"]])
def test_a_home_that_cannot_be_made(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("CELLLOOP_HOME", str(tmp_path / "file" / "home"))
    monkeypatch.setattr(composition, "label_studio_program", lambda: tmp_path / "file")
    assert_one_line(run(*command), "CELLLOOP_HOME")


@pytest.mark.parametrize(
    ("name", "value", "command"),
    [
        ("DEVICE", "banana", "migrate"),
        ("LABEL_STUDIO_TOKEN", "tökén", "sync"),
        ("LABEL_STUDIO_URL", "localhost", "sync"),
        ("DATABASE_URL", "mysql://somewhere", "migrate"),
        ("DATABASE_URL", "postgresql://nobody@127.0.0.1:9/nothing", "migrate"),
    ],
)
def test_unusable_settings(run: Run, monkeypatch: pytest.MonkeyPatch, name: str, value: str, command: str) -> None:
    monkeypatch.setenv(f"CELLLOOP_{name}", value)
    assert_one_line(run(command))
    assert value not in ("tökén",) or value not in run(command)[2], "a token is not repeated"


# --- Label Studio -------------------------------------------------------------------------------------------


def connected(database: Database, url: str) -> None:
    """As if `cellloop label-studio connect` had been there."""
    with database.session() as session:
        projects.upsert_project(session, url=url, ls_project_id=1, title="cellloop", label_config=default_config())


def known(database: Database) -> tuple[int, int, int]:
    """How many labels, reviews and predictions there are: what trouble may not lessen."""
    with database.session(read_only=True) as session:
        pair = versions.active_pair(session)
        assert pair is not None
        stored = predictions.by_pair(session, pair.id)
        return labels.newest_revision_id(session), len(reviews.live_threads(session)), len(stored)


NEEDS_LABEL_STUDIO = (["label-studio", "connect"], ["push"], ["sync"])


@pytest.mark.parametrize("command", NEEDS_LABEL_STUDIO, ids=" ".join)
def test_label_studio_is_down(run: Run, installed: Database, command: list[str]) -> None:
    connected(installed, "http://127.0.0.1:9")
    before = known(installed)
    assert_one_line(run(*command), "cannot be reached", "cellloop label-studio start")
    assert known(installed) == before


@pytest.mark.parametrize("command", NEEDS_LABEL_STUDIO, ids=" ".join)
@pytest.mark.parametrize(
    ("status", "words"), [(401, "CELLLOOP_LABEL_STUDIO_TOKEN"), (500, "failed with 500")], ids=["refuses", "fails"]
)
def test_label_studio_refuses_or_fails(
    run: Run, installed: Database, monkeypatch: pytest.MonkeyPatch, command: list[str], status: int, words: str
) -> None:
    with label_studio(lambda method, path: (status, {"detail": "no"})) as url:
        monkeypatch.setenv("CELLLOOP_LABEL_STUDIO_URL", url)
        connected(installed, url)
        before = known(installed)
        assert_one_line(run(*command), url, words)
        assert known(installed) == before


def project(label_config: str) -> dict[str, Any]:
    return {"id": 1, "title": "cellloop", "label_config": label_config, "model_version": "", "sampling": ""}


def test_a_project_without_a_usable_control(run: Run, installed: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def answer(method: str, path: str) -> tuple[int, Any]:
        asked.append(method)
        choices = '<View><Image name="i" value="$image"/><Choices name="c" toName="i"><Choice value="x"/></Choices>'
        choices += "</View>"
        return 200, {"results": [project(choices)], "next": None, "count": 1}

    with label_studio(answer) as url:
        monkeypatch.setenv("CELLLOOP_LABEL_STUDIO_URL", url)
        assert_one_line(run("label-studio", "connect"), "project cellloop", "RectangleLabels")
    assert set(asked) == {"GET"}, "nothing in the project was touched"


def test_our_backend_is_down_while_connecting(run: Run, installed: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(method: str, path: str) -> tuple[int, Any]:
        if path.startswith("/api/projects"):
            found = project(default_config())
            return 200, found if path.strip("/").endswith("1") else {"results": [found], "next": None, "count": 1}
        if method == "GET":
            return 200, []
        return (400, {"detail": "health check failed"}) if path.startswith("/api/ml") else (201, {"id": 1})

    with label_studio(answer) as url:
        monkeypatch.setenv("CELLLOOP_LABEL_STUDIO_URL", url)
        assert_one_line(run("label-studio", "connect"), "cellloop serve", "connect again", "health check failed")
    with installed.session(read_only=True) as session:
        assert [found.title for found in projects.projects(session)] == ["cellloop"], "the rest is set up"


def test_the_worker_outlives_trouble(
    home: Path, installed: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Label Studio away and a serving model's weights gone: one warning each, and what works goes on."""
    monkeypatch.setenv("CELLLOOP_POLL_S", "0.001")
    connected(installed, "http://127.0.0.1:9")
    damage(home, installed, 2, None)
    with installed.session() as session:
        asked = images.pool(session)[0].id
        predictions.request(session, asked)
        versions.activate(session, 3, kind="person", reasons=["for a test"])
        versions.active_pair(session)
    damage(home, installed, 3, None)
    before = known(installed)[:2]
    worker = Worker(composition.open_loop())
    monkeypatch.setattr(worker, "_start_queued", lambda: None)
    monkeypatch.setattr(worker, "_follow_pair", lambda: False)
    for _ in range(20):
        worker.tick()
        worker._rests_until.clear()
    told = [record.getMessage() for record in caplog.records if record.name == "cellloop.worker"]
    assert len([line for line in told if "cannot be reached" in line]) == 1
    assert len([line for line in told if ".safetensors" in line]) == 1
    assert known(installed)[:2] == before
    with installed.session(read_only=True) as session:
        assert [image.id for image in predictions.requests(session)] == [asked], "still owed"
