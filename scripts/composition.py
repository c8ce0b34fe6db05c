"""The composition root of the command line: the one place where a command reads the environment."""

from __future__ import annotations

from dataclasses import dataclass

from backend.credentials import Credentials, load_credentials
from backend.settings import Settings
from backend.store import FileStore
from db.errors import UnusableDatabase
from db.migrate import pending
from db.session import Database


@dataclass(frozen=True)
class Composition:
    """What a command works with, built from the environment."""

    settings: Settings
    database: Database
    store: FileStore
    credentials: Credentials

    @property
    def label_studio_token(self) -> str:
        """The token from the environment, or else the generated one."""
        return self.settings.label_studio_token or self.credentials.label_studio_token


def compose() -> Composition:
    """Settings, record, file store and secrets. Raises UnusableDatabase when the tables are not the current ones."""
    settings = Settings()
    settings.home.mkdir(parents=True, exist_ok=True)
    database = Database(settings.database_url)
    if pending(settings.database_url):
        shown = database.engine.url.render_as_string(hide_password=True)
        raise UnusableDatabase(f"{shown}: expected today's tables, got older ones or none; run: cellloop migrate")
    return Composition(settings, database, FileStore(settings.files), load_credentials(settings.home))
