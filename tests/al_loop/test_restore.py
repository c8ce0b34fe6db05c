"""A backup back into an empty installation, on either engine; refused, whole and unchanged, or as it was."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from zipfile import ZipFile

import pytest
from sqlalchemy import Connection

from al_loop.archive import Archive, ArchiveWriter
from al_loop.backup import backup
from al_loop.jobs import system_database_url
from al_loop.restore import LOST, restore
from backend.errors import ArchiveDamaged, RestoreRefused
from backend.store import FileStore
from db import backup as record
from db import migrate
from db.backup import Kind
from db.bulk import insert_rows
from db.models import Image, RunStatus, TrainingRun
from db.session import Database
from tests.al_loop.full_record import content, derived, fill
from tests.builders import add_image

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
KILLED = """
import os, signal, sys
from pathlib import Path
from al_loop.restore import restore
from backend.store import FileStore

def die(done, total, note):
    if note == "predictions":
        os.kill(os.getpid(), signal.SIGKILL)

url, home, archive = sys.argv[1:]
restore(url, f"sqlite:///{home}/jobs.sqlite", FileStore(Path(home) / "files"), Path(archive), die)
"""


@pytest.fixture
def archive(sqlite_database: Database, tmp_path: Path) -> Path:
    """A backup of a full record on SQLite."""
    store = FileStore(tmp_path / "source")
    fill(sqlite_database, store)
    backup(sqlite_database, store, tmp_path / "backup.zip")
    return tmp_path / "backup.zip"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def put_back(url: str, home: Path, archive: Path) -> int:
    """Restore; how many trainings had been under way."""
    jobs_url = system_database_url(home, url)
    return restore(url, jobs_url, FileStore(home / "files"), archive).failed_runs


def test_everything_comes_back_on_either_engine(database: Database, empty_url: str, home: Path, tmp_path: Path) -> None:
    source, target = FileStore(tmp_path / "source"), FileStore(home / "files")
    fill(database, source)
    with database.session(read_only=True) as session:
        assert record.filled_tables(session.connection()).keys() == {table.name for table in record.kept_tables()}
    before, followed = content(database), derived(database)
    manifest = backup(database, source, tmp_path / "backup.zip")
    assert put_back(empty_url, home, tmp_path / "backup.zip") == 2
    restored = Database(empty_url)
    after = content(restored)
    runs = after.pop("training_runs")
    assert [run for run in runs if "succeeded" in run] == before.pop("training_runs")
    assert after == before
    assert derived(restored) == followed
    assert all(followed.values())
    for file, sha256 in manifest.files.items():
        assert target.read(file, sha256) == source.read(file, sha256)
    with restored.session() as session:
        lost = session.query(TrainingRun).filter_by(status=RunStatus.failed).all()
        assert [(run.error, run.finished_at is not None) for run in lost] == [(LOST, True)] * 2
        assert add_image(session).id == max(row[0] for row in before["images"]) + 1
    with pytest.raises(Exception, match="are facts"), restored.session() as session:
        session.query(Image).update({"name": "changed"})
    restored.dispose()


def test_whatever_is_damaged_is_refused_before_anything_changes(archive: Path, home: Path, tmp_path: Path) -> None:
    whole = archive.read_bytes()
    damaged = tmp_path / "damaged.zip"
    with ZipFile(archive) as opened:
        places = [info.header_offset + 200 for info in opened.infolist() if info.file_size > 400]
    cuts = [whole[:cut] for cut in (0, 10, len(whole) // 2, len(whole) - 1)]
    flips = [whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :] for place in places]
    for data in (b"no archive at all", *cuts, *flips):
        damaged.write_bytes(data)
        with pytest.raises(ArchiveDamaged, match=r"damaged\.zip: expected .*; use another backup"):
            put_back(f"sqlite:///{home}/cellloop.db", home, damaged)
    assert len(flips) > 10
    assert not home.exists()


def test_no_flipped_byte_goes_unnoticed_where_it_matters(archive: Path, tmp_path: Path) -> None:
    """Anywhere in the file: either it is refused, or every member is as it was."""
    whole, refused = archive.read_bytes(), 0
    manifest = Archive(archive).manifest
    for place in range(0, len(whole), len(whole) // 250):
        damaged = tmp_path / f"{place}.zip"
        damaged.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        try:
            found = Archive(damaged)
            found.check(lambda done, total, note: None)
        except ArchiveDamaged:
            refused += 1
        else:
            assert found.manifest == manifest
        damaged.unlink()
    assert refused > 150


def test_a_filled_database_is_left_alone(database: Database, tmp_path: Path, home: Path) -> None:
    old_archive(tmp_path / "old.zip", "2026_11_23_runs")
    with database.session() as session:
        add_image(session)
    before = content(database)
    url = database.engine.url.render_as_string(hide_password=False)
    with pytest.raises(RestoreRefused, match="expected an empty database, got 1 rows in images"):
        put_back(url, home, tmp_path / "old.zip")
    assert content(database) == before
    assert not home.exists()


def test_jobs_of_an_earlier_record_would_be_taken_for_its_own(archive: Path, home: Path) -> None:
    home.mkdir()
    jobs = Database(f"sqlite:///{home / 'jobs.sqlite'}")
    with jobs.session() as session:
        session.connection().exec_driver_sql("CREATE TABLE workflow_status (workflow_uuid TEXT)")
        session.connection().exec_driver_sql("INSERT INTO workflow_status VALUES ('turn-6')")
    with pytest.raises(RestoreRefused, match=r"move jobs\.sqlite out"):
        put_back(f"sqlite:///{home}/cellloop.db", home, archive)


def test_killed_half_way_and_repeated(archive: Path, home: Path, sqlite_database: Database) -> None:
    url = f"sqlite:///{home}/cellloop.db"
    killed = subprocess.run([sys.executable, "-c", KILLED, url, str(home), str(archive)], timeout=60)
    assert killed.returncode == -signal.SIGKILL
    with Database(url).session(read_only=True) as session:
        assert record.filled_tables(session.connection()) == {}
    assert put_back(url, home, archive) == 2
    assert derived(Database(url)) == derived(sqlite_database)


def old_archive(path: Path, revision: str) -> tuple[dict[str, Kind], list[tuple[object, ...]]]:
    """Write an archive as an older version would have, with one image; the columns and rows of that table."""
    kinds: dict[str, Kind] = {
        "id": "integer", "sha256": "text", "file": "text", "name": "text", "width": "integer", "height": "integer",
        "group": "text", "split": "text", "dataset": "text", "created_at": "moment",
    }  # fmt: skip
    rows: list[tuple[object, ...]] = [(7, "0" * 64, "images/00/0.png", "old", 4, 4, "g", "train", "d", NOON)]
    with path.open("xb") as file, ArchiveWriter(file) as writer:
        count = writer.add_table("images", kinds, [rows])
        writer.finish(NOON.isoformat(), "sqlite", revision, {"images": count})
    return kinds, rows


def never_migrated(url: str, insert: Callable[[Connection], object]) -> None:
    """Nothing there yet."""


def migrated_and_empty(url: str, insert: Callable[[Connection], object]) -> None:
    """Somebody has run `cellloop migrate`, or started the server."""
    migrate.upgrade(url)


def killed_before_it_was_migrated(url: str, insert: Callable[[Connection], object]) -> None:
    """All rows are there, and the older tables."""
    migrate.upgrade(url, "2026_11_23_runs")
    with Database(url).engine.begin() as connection:
        insert(connection)


@pytest.mark.parametrize("state", [never_migrated, migrated_and_empty, killed_before_it_was_migrated])
def test_an_older_archive_is_brought_up_to_date(tmp_path: Path, home: Path, state: Callable[..., None]) -> None:
    kinds, rows = old_archive(tmp_path / "old.zip", "2026_11_23_runs")
    url = f"sqlite:///{home}/cellloop.db"
    state(url, lambda connection: insert_rows(connection, record.table_of("images", kinds), [rows]))
    put_back(url, home, tmp_path / "old.zip")
    assert not migrate.pending(url)
    with Database(url).session(read_only=True) as session:
        (image,) = session.query(Image).all()
    assert (image.id, image.name, image.created_at, image.patient) == (7, "old", NOON, None)
    with pytest.raises(RestoreRefused, match="1 rows in images"):
        put_back(url, home, tmp_path / "old.zip")


def test_an_archive_of_a_newer_version_is_refused(tmp_path: Path, home: Path) -> None:
    old_archive(tmp_path / "newer.zip", "2099_01_01_moon")
    with pytest.raises(RestoreRefused, match="expected a revision that this version knows"):
        put_back(f"sqlite:///{home}/cellloop.db", home, tmp_path / "newer.zip")
    assert not home.exists()
