"""A backup while people work: one moment of the record, with its files, whole or not there."""

from __future__ import annotations

import stat
from pathlib import Path
from zipfile import ZipFile

import pyarrow.parquet as pq
import pytest

from al_loop.archive import Archive
from al_loop.backup import backup
from backend.errors import DatabaseNotMigrated, SettingRefused, StoredFileCorrupt
from backend.far_store import open_store
from backend.store import FileStore
from db import backup as record
from db import migrate
from db.models import Image
from db.session import Database
from tests.al_loop.full_record import fill
from tests.builders import add_cell, say


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "files")


def test_people_go_on_meanwhile_and_the_archive_is_of_one_moment(
    database: Database, store: FileStore, tmp_path: Path
) -> None:
    """A review is added after each table and each file that was written."""
    fill(database, store)
    with database.session(read_only=True) as session:
        before = {table.name: record.row_count(session.connection(), table) for table in record.kept_tables()}
    added = 0

    def go_on(done: int, total: int, note: str) -> None:
        nonlocal added
        added += 1
        with database.session() as session:
            image = session.query(Image).order_by(Image.id).first()
            assert image is not None
            say(session, add_cell(session, image), "ring", f"ls:9:{added}", minute=added)

    manifest = backup(database, store, tmp_path / "backup.zip", on_progress=go_on)
    assert added >= 30
    assert manifest.rows == before
    archive = Archive(tmp_path / "backup.zip")
    archive.check(lambda done, total, note: None)
    columns, batches = archive.table("label_revisions")
    of_review = list(columns).index("review_id")
    _, reviews = archive.table("reviews")
    known = {row[0] for batch in reviews for row in batch}
    assert {row[of_review] for batch in batches for row in batch} <= known


def test_the_archive_is_read_by_any_tool_and_by_its_owner_only(
    sqlite_database: Database, store: FileStore, tmp_path: Path
) -> None:
    fill(sqlite_database, store)
    path = tmp_path / "backup.zip"
    manifest = backup(sqlite_database, store, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.glob(".backup*")) == []
    with ZipFile(path) as archive, archive.open("tables/images.parquet") as member:
        assert archive.testzip() is None
        assert set(pq.read_table(member)["name"].to_pylist()) == {"a smear", "another smear"}
        for file, sha256 in manifest.files.items():
            assert archive.read(f"files/{file}") == store.read(file, sha256)
    assert len(manifest.files) == 4
    with pytest.raises(SettingRefused, match="take another name"):
        backup(sqlite_database, store, path)
    assert backup(sqlite_database, store, tmp_path / "rows.zip", files=False).files == {}


def test_a_damaged_file_is_named_and_no_archive_is_left(
    sqlite_database: Database, store: FileStore, tmp_path: Path
) -> None:
    fill(sqlite_database, store)
    (image, *_) = store.root.glob("images/*/*.png")
    image.write_bytes(b"damaged")
    folder = tmp_path / "backups"
    with pytest.raises(StoredFileCorrupt, match=image.name):
        backup(sqlite_database, store, folder / "backup.zip")
    assert list(folder.iterdir()) == []
    assert backup(sqlite_database, store, folder / "rows.zip", files=False).rows["images"] == 2


def test_files_that_lie_elsewhere_come_along(sqlite_database: Database, tmp_path: Path) -> None:
    (tmp_path / "share").mkdir()
    url = f"file://{tmp_path / 'share'}"
    fill(sqlite_database, open_store(tmp_path / "one machine", url))
    manifest = backup(sqlite_database, open_store(tmp_path / "another", url), tmp_path / "backup.zip")
    assert len(manifest.files) == 4


def test_older_tables_are_migrated_first(tmp_path: Path, store: FileStore) -> None:
    url = f"sqlite:///{tmp_path / 'old.db'}"
    migrate.upgrade(url, "2026_11_23_runs")
    with pytest.raises(DatabaseNotMigrated, match="cellloop migrate"):
        backup(Database(url), store, tmp_path / "backup.zip")
