"""The doctor on the record: the database, the images and weights it speaks of, and the projects we serve."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError

from backend.errors import FileStoreUnavailable, StoredFileCorrupt
from backend.findings import Finding, broken, notice, ok
from backend.settings import Settings
from backend.store import FileStore, weights_file
from db import images, migrate, projects, versions
from db.errors import UnusableDatabase
from db.models import Split
from db.session import Database, parse_url


def check_database(settings: Settings) -> Finding:
    """Whether the database answers and has today's tables. Makes nothing, not even an empty SQLite file."""
    try:
        url = parse_url(settings.database_url)
        shown = make_url(url).render_as_string(hide_password=True)
        if url.get_backend_name() == "sqlite" and not (settings.home / str(url.database)).exists():
            return broken("database", f"{shown}: not there yet", "run: cellloop migrate")
        revision, due = migrate.current(settings.database_url), migrate.pending(settings.database_url)
    except UnusableDatabase as error:
        return broken("database", str(error), "set CELLLOOP_DATABASE_URL, or unset it for SQLite in the home folder")
    except OperationalError as error:
        return broken(
            "database",
            f"does not answer: {' '.join(str(error.orig).split())}",
            "start it, or mend CELLLOOP_DATABASE_URL",
        )
    if due:
        return broken("database", f"{shown}: at revision {revision}, which is not today's", "run: cellloop migrate")
    if gone := migrate.missing(settings.database_url):
        found = f"{shown}: {len(gone)} triggers and views are gone, first {gone[0]}: facts are not guarded"
        return broken("database", found, "run: cellloop migrate, and find out who dropped them")
    return ok("database", f"{shown}, revision {revision}")


def check_images(database: Database, store: FileStore) -> Finding:
    """How many images there are, and whether each one's file is in the store (its presence, not its bytes)."""
    with database.session(read_only=True) as session:
        counts = images.counts(session)
        files = [image.file for split in Split for image in images.by_split(session, split)]
    if not files:
        return notice("images", "none", "run: cellloop import <folder or zip>")
    try:
        missing = store.missing(files)
    except FileStoreUnavailable as error:
        return notice("images", f"{len(files)}, but {error}", "mend the file store first")
    shown = ", ".join(f"{count} {split}" for split, count in counts.items())
    if missing:
        mend = "restore the store from a backup, or import the same images again"
        return broken("images", f"{len(missing)} of {len(files)} files are missing, first {missing[0]}", mend)
    return ok("images", f"{len(files)} ({shown})")


def check_models(database: Database, store: FileStore) -> Iterator[Finding]:
    """One finding per role: which version serves, and whether its weight file still has the bytes it had."""
    with database.session(read_only=True) as session:
        serving = {role: versions.active(session, role) for role in ("all_cells", "infected")}
    for role, version in serving.items():
        about = f"model {role}"
        if version is None:
            yield notice(about, "none is active", f"run: cellloop train --role {role}")
            continue
        sha256 = version.weights_sha256
        try:
            store.verify(weights_file(sha256), sha256)
        except (StoredFileCorrupt, FileStoreUnavailable) as error:
            mend = f"restore the file, or: cellloop rollback --role {role}"
            yield broken(about, f"version {version.id}: {str(error).split(';')[0]}", mend)
            continue
        yield ok(about, f"version {version.id} serves, weights {sha256[:12]} verified")


def check_projects(database: Database, settings: Settings) -> Finding:
    """Whether a project of the configured Label Studio is connected, and when it was last read."""
    mend = "run: cellloop label-studio connect"
    with database.session(read_only=True) as session:
        known = projects.projects(session)
    ours = [project for project in known if project.url == settings.label_studio_url]
    if not ours:
        others = f" (but {len(known)} of other addresses)" if known else ""
        return notice("projects", f"none of {settings.label_studio_url}{others}", mend)
    read = ", ".join(f"{p.title} (last read {p.synced_at or 'never'})" for p in ours)
    return ok("projects", read)
