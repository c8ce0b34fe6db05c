"""`cellloop backup`: everything in one file, while everything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scripts import console


def backup(
    file: Annotated[Path, typer.Argument(help="The archive to write: a new .zip.")],
    no_files: Annotated[
        bool, typer.Option("--no-files", help="Leave out images and weights: they are kept elsewhere.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Write every row of the record, as of one moment, and the files they name into one archive: whole or not at all.

    Experts and trainings may go on meanwhile. Neither the secrets (credentials.json) nor Label Studio's own data are
    in it: keep a copy of those beside it.

    Example: cellloop backup ~/backups/cellloop-2026-11-26.zip
    """
    from datetime import datetime

    from al_loop.backup import backup as back_up
    from backend.last_backup import note_backup
    from scripts.composition import open_loop

    loop = open_loop()
    with console.progress("backing up") as advance:
        manifest = back_up(loop.database, loop.store, file, files=not no_files, on_progress=advance)
    note_backup(loop.settings.home, datetime.fromisoformat(manifest.made_at))
    made = {"made_at": manifest.made_at, "engine": manifest.engine, "revision": manifest.revision}
    counts = {"bytes": file.stat().st_size, "files": len(manifest.files), "rows": manifest.rows}
    console.emit({"archive": str(file), **made, **counts}, as_json)
