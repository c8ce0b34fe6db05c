"""The whole installation in one file, while everything runs: all rows as they were at one moment, and their files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from al_loop.archive import ArchiveWriter, Manifest, Passing
from backend.errors import DatabaseNotMigrated, SettingRefused
from backend.store import FileStore, weights_file, whole_or_absent
from db import backup as record
from db import migrate
from db.models import now
from db.session import Database

OWNER_ONLY = 0o600  # an archive holds everybody's images


def backup(
    database: Database,
    store: FileStore,
    path: Path,
    *,
    files: bool = True,
    on_progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> Manifest:
    """Write the archive `path`: it is there whole, readable by its owner only, or not at all. What it holds.

    files: images and weights come along, checked as they are copied; what is not here is fetched from the far store.
    Raises SettingRefused when `path` exists, StoredFileCorrupt when a file is damaged or missing, DatabaseNotMigrated.
    """
    if path.exists():
        raise SettingRefused(f"{path}: expected the name of a new file for the backup, there is one; take another name")
    with whole_or_absent(path) as file, ArchiveWriter(file) as archive:
        os.fchmod(file.fileno(), OWNER_ONLY)
        with database.session(read_only=True) as session:
            connection = session.connection()
            made_at, revision, head = now(), migrate.revision_of(connection), migrate.head()
            if revision is None or revision != head:
                raise DatabaseNotMigrated(f"expected tables of revision {head}, got {revision}; run: cellloop migrate")
            images, weights = record.files(connection)
            tables = record.kept_tables()
            passing = Passing(sum(record.row_count(connection, table) for table in tables), on_progress)
            rows = {}
            for table in tables:
                kinds = {column.name: record.kind_of(column) for column in table.columns}
                found = passing(record.rows(connection, table), table.name)
                rows[table.name] = archive.add_table(table.name, kinds, found)
        # Files never change: nothing holds that moment in the database while they are copied.
        wanted = [*images, *((weights_file(sha256), sha256) for sha256 in weights)] if files else []
        for done, (name, sha256) in enumerate(wanted, start=1):
            archive.add_file(name, store.read(name, sha256))
            on_progress(done, len(wanted), "files")
        return archive.finish(made_at.isoformat(), database.engine.dialect.name, revision, rows)
