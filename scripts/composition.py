"""The composition root of the command line: the one place where a command reads the environment."""

from __future__ import annotations

import shutil
from pathlib import Path

from al_loop.context import Loop
from backend.credentials import load_credentials
from backend.errors import DatabaseNotMigrated
from backend.settings import Settings
from backend.store import FileStore
from db.migrate import pending
from db.session import Database


def read_settings() -> Settings:
    """The environment's settings, with the home folder made."""
    settings = Settings()
    settings.home.mkdir(parents=True, exist_ok=True)
    return settings


def open_loop() -> Loop:
    """Settings, record, file store and secrets. Raises DatabaseNotMigrated when the tables are not the current ones."""
    settings = read_settings()
    database = Database(settings.database_url)
    if pending(settings.database_url):
        shown = database.engine.url.render_as_string(hide_password=True)
        raise DatabaseNotMigrated(f"{shown}: expected today's tables, got older ones or none; run: cellloop migrate")
    return Loop(settings, database, FileStore(settings.files), load_credentials(settings.home))


def label_studio_program() -> Path | None:
    """Label Studio's executable: of `.venv-label-studio` beside the sources, else of the PATH, else None."""
    beside = Path(__file__).resolve().parents[1] / ".venv-label-studio" / "bin" / "label-studio"
    found = str(beside) if beside.is_file() else shutil.which("label-studio")
    return Path(found) if found else None
