"""Bad input and trouble, as a user meets it: one line that says what to do, exit code 1, and nothing else spoilt."""

from __future__ import annotations

import json
import shutil
import socket
import struct
import zlib
from pathlib import Path

import pytest

from al_loop import jobs
from db import runs, versions
from db.models import RunStatus, VersionStatus
from db.session import Database
from scripts import composition
from tests.trouble import FIELDS, Run, assert_one_line, damage


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
    [(None, "nothing there"), ({}, "bbbc041, iml, coco"), ({"training.json": '{"a": ['}, "training.json is no JSON")],
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
    undone = json.loads(run("rollback", "--json")[1])
    assert (undone["role"], undone["active"], undone["replaced"]) == ("infected", 2, 3)
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
