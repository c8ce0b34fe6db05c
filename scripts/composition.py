"""The composition root of the command line: the one place where a command reads the environment."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from al_loop.context import Loop
from backend.credentials import load_credentials
from backend.errors import DatabaseNotMigrated, LabelStudioUnavailable, NotConnected
from backend.far_store import open_store
from backend.home import prepare_home
from backend.label_studio.server import LabelStudioConfig
from backend.settings import Settings
from db import projects
from db.migrate import pending
from db.models import Project
from db.session import Database

LOOPBACK = ("127.0.0.1", "localhost")


def read_settings() -> Settings:
    """The environment's settings. Makes nothing."""
    return Settings()


def open_loop() -> Loop:
    """Settings, record, file store and secrets. Raises DatabaseNotMigrated when the tables are not the current ones."""
    settings = read_settings()
    prepare_home(settings.home)
    database = Database(settings.database_url)
    if pending(settings.database_url):
        shown = database.engine.url.render_as_string(hide_password=True)
        raise DatabaseNotMigrated(f"{shown}: expected today's tables, got older ones or none; run: cellloop migrate")
    return Loop(settings, database, open_store(settings.files, settings.files_url), load_credentials(settings.home))


def label_studio_config(settings: Settings) -> LabelStudioConfig:
    """How to start Label Studio at the configured address. Raises LabelStudioUnavailable when that is elsewhere."""
    address = urlsplit(settings.label_studio_url)
    program = label_studio_program()
    if address.hostname not in LOOPBACK:
        raise LabelStudioUnavailable(
            f"CELLLOOP_LABEL_STUDIO_URL: expected {' or '.join(LOOPBACK)} to start Label Studio at, "
            f"got {settings.label_studio_url}; start it on that machine, or change the address"
        )
    if program is None:
        raise LabelStudioUnavailable("Label Studio is not installed here; `bash scripts/demo.sh` installs it")
    prepare_home(settings.home)
    credentials = load_credentials(settings.home)
    return LabelStudioConfig(
        executable=program,
        home=settings.home,
        email=credentials.label_studio_email,
        password=credentials.label_studio_password,
        token=credentials.label_studio_token,
        port=address.port or 80,
        host=address.hostname,
    )


def label_studio_program() -> Path | None:
    """Label Studio's executable: of `.venv-label-studio` beside the sources, else of the PATH, else None."""
    beside = Path(__file__).resolve().parents[1] / ".venv-label-studio" / "bin" / "label-studio"
    found = str(beside) if beside.is_file() else shutil.which("label-studio")
    return Path(found) if found else None


def connected_projects(loop: Loop) -> Sequence[Project]:
    """The Label Studio projects we serve. Raises NotConnected when there is none."""
    with loop.database.session(read_only=True) as session:
        found = projects.projects(session)
    if not found:
        raise NotConnected("expected a connected Label Studio project, found none; run: cellloop label-studio connect")
    return found
