"""The composition root of the command line: the one place where a command reads the environment."""

from __future__ import annotations

from al_loop.context import Loop
from backend.credentials import load_credentials
from backend.settings import Settings
from backend.store import FileStore
from db.errors import UnusableDatabase
from db.migrate import pending
from db.session import Database


def read_settings() -> Settings:
    """The environment's settings, with the home folder made."""
    settings = Settings()
    settings.home.mkdir(parents=True, exist_ok=True)
    return settings


def open_loop() -> Loop:
    """Settings, record, file store and secrets. Raises UnusableDatabase when the tables are not the current ones."""
    settings = read_settings()
    database = Database(settings.database_url)
    if pending(settings.database_url):
        shown = database.engine.url.render_as_string(hide_password=True)
        raise UnusableDatabase(f"{shown}: expected today's tables, got older ones or none; run: cellloop migrate")
    return Loop(settings, database, FileStore(settings.files), load_credentials(settings.home))
