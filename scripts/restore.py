"""`cellloop restore`: a backup into an empty installation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scripts import console


def restore(
    file: Annotated[Path, typer.Argument(help="What `cellloop backup` wrote.")],
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Check an archive, then put its files into the store and its rows into an empty database, SQLite or PostgreSQL.

    Nothing changes unless every byte is as it was written. All rows come at once or none, and a restore that was
    killed can be repeated. An older archive is brought up to date. Secrets (credentials.json) are not in it: they come
    from your own copy, else new ones are made.

    Example: CELLLOOP_HOME=~/new cellloop restore ~/backups/cellloop-2026-11-26.zip
    """
    from al_loop.jobs import system_database_url
    from al_loop.restore import restore as put_back
    from backend.far_store import open_store
    from backend.home import prepare_home
    from scripts.composition import read_settings

    settings = read_settings()
    prepare_home(settings.home)
    store = open_store(settings.files, settings.files_url)
    jobs_url = system_database_url(settings.home, settings.database_url)
    with console.progress("restoring") as advance:
        restored = put_back(settings.database_url, jobs_url, store, file, advance)
    manifest = restored.manifest
    report = {"archive": str(file), "made_at": manifest.made_at, "revision": restored.revision}
    counts = {"files": len(manifest.files), "failed_runs": restored.failed_runs, "rows": manifest.rows}
    console.emit({**report, **counts}, as_json)
