"""A backup back into an empty installation, on whichever engine: checked first, then all rows at once or none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from al_loop.archive import Archive, Manifest, Passing
from backend.errors import ArchiveDamaged, RestoreRefused
from backend.store import FileStore
from db import backup as record
from db import migrate
from db.bulk import insert_rows, loading
from db.session import Database

OnProgress = Callable[[int, int, str], None]
LOST = "restored from a backup: its job is gone; run: cellloop retrain"


@dataclass(frozen=True)
class Restored:
    """What was put back. revision: of the database now. failed_runs: how many trainings had been under way."""

    manifest: Manifest
    revision: str
    failed_runs: int


def restore(
    url: str,
    jobs_url: str,
    store: FileStore,
    path: Path,
    on_progress: OnProgress = lambda done, total, note: None,
) -> Restored:
    """Put the files of the archive `path` into the store and its rows, with their ids, into the database at `url`.

    jobs_url: where the job runtime keeps its tables (`al_loop.jobs.system_database_url`), which must know no job yet.
    Killed and repeated, it begins again, or only migrates the rows that are there. Raises ArchiveDamaged;
    RestoreRefused when something is in the database, or this version is too old for the archive; RowsRefused when the
    engine cannot store what the other one could. After an error the database is as empty as before.
    """
    archive = Archive(path)
    manifest, failed = archive.manifest, 0
    if not migrate.knows(manifest.revision):
        raise RestoreRefused(
            f"{path}: expected a revision that this version knows, got {manifest.revision}; restore it with a newer one"
        )
    there = _refuse_what_is_filled(url, jobs_url, manifest)
    archive.check(on_progress)
    if not there:
        for done, (file, sha256) in enumerate(manifest.files.items(), start=1):
            store.put_as(file, sha256, (archive.file(file),))
            on_progress(done, len(manifest.files), "files")
        if migrate.current(url) not in (None, manifest.revision):
            migrate.downgrade(url, "base")
        migrate.upgrade(url, manifest.revision)
        failed = _put_back(url, archive, on_progress)
    migrate.upgrade(url)
    return Restored(manifest, str(migrate.head()), failed)


def _refuse_what_is_filled(url: str, jobs_url: str, manifest: Manifest) -> bool:
    """Whether all rows of the archive are there, and only a migration is due. Raises RestoreRefused for others."""
    revision = migrate.current(url)
    if revision is not None and not migrate.knows(revision):
        raise RestoreRefused(f"expected an empty database, got one of a newer version ({revision}); make a new one")
    filled = {} if revision is None else _filled(url)
    whole = filled == {name: count for name, count in manifest.rows.items() if count}
    if filled and whole and revision == manifest.revision and migrate.pending(url):
        return True
    _refuse(filled)
    if record.has_jobs(jobs_url):
        raise RestoreRefused(
            "expected no jobs of an earlier record, got some; move jobs.sqlite out of the home folder, "
            "or with PostgreSQL make a new database, and restore again"
        )
    return False


def _filled(url: str) -> dict[str, int]:
    database = Database(url)
    try:
        with database.session(read_only=True) as session:
            return record.filled_tables(session.connection())
    finally:
        database.dispose()


def _refuse(filled: dict[str, int]) -> None:
    if filled:
        shown = ", ".join(f"{count} rows in {name}" for name, count in list(filled.items())[:3])
        raise RestoreRefused(
            f"expected an empty database, got {shown}; stop cellloop, make a new database (SQLite: move the file "
            "away), and restore again"
        )


def _put_back(url: str, archive: Archive, on_progress: OnProgress) -> int:
    """Insert every row in one transaction; how many trainings had been under way."""
    database, rows = Database(url), archive.manifest.rows
    passing = Passing(sum(rows.values()), on_progress)
    try:
        with database.session() as session:
            connection = session.connection()
            record.keep_writers_out(connection, list(rows))
            _refuse(record.filled_tables(connection))  # somebody was quicker
            with loading(connection):
                for name, expected in rows.items():
                    kinds, batches = archive.table(name)
                    count = insert_rows(connection, record.table_of(name, kinds), passing(batches, name))
                    if count != expected:
                        raise ArchiveDamaged(f"{archive.path}: expected {expected} rows of {name}, got {count}")
            failed = record.fail_open_runs(connection, LOST)
            record.count_on(connection, list(rows))
            return failed
    finally:
        database.dispose()
