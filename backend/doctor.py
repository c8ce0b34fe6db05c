"""`cellloop doctor`: what is missing or misconfigured, and how to mend it.

Looks only; changes nothing, but that it writes a small file into a shared file store and removes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from backend import doctor_label_studio, doctor_machine, doctor_operations, doctor_record
from backend.credentials import Credentials, credentials_file, load_credentials
from backend.errors import CredentialsUnusable
from backend.far_store import open_store
from backend.findings import Finding
from backend.settings import Settings
from backend.store import FileStore
from db import projects
from db.models import Way
from db.session import Database


def diagnose(settings: Settings, label_studio_program: Path | None = None) -> Iterator[Finding]:
    """Every finding about this installation, the most basic first; what rests on something broken is not asked.

    label_studio_program: Label Studio's executable as this machine would start it, None when it is started elsewhere.
    """
    credentials = _credentials(settings.home)
    yield doctor_machine.check_python()
    yield doctor_machine.check_torch(settings.device)
    yield doctor_machine.check_home(settings.home)
    store = open_store(settings.files, settings.files_url)
    yield doctor_machine.check_files(store)
    yield doctor_machine.check_credentials(settings.home)
    yield doctor_machine.check_port(settings, credentials)
    yield doctor_machine.check_exposure(settings)
    found = doctor_record.check_database(settings)
    yield found
    project_ids: list[int] = []
    cell_ids: list[int] = []
    if found.state != "broken":
        database = Database(settings.database_url)
        try:
            yield from _record(settings, database, store)
            with database.session(read_only=True) as session:
                known = projects.projects(session)
            here = [p for p in known if p.url == settings.label_studio_url]
            project_ids = [p.ls_project_id for p in here]
            cell_ids = [p.ls_project_id for p in here if p.way == Way.cell]
        finally:
            database.dispose()
    yield from doctor_label_studio.check(settings, credentials, label_studio_program, project_ids, cell_ids)


def _record(settings: Settings, database: Database, store: FileStore) -> Iterator[Finding]:
    yield doctor_record.check_images(database, store)
    yield from doctor_record.check_models(database, store)
    yield doctor_record.check_projects(database, settings)
    yield from doctor_operations.check(database, settings.home)


def _credentials(home: Path) -> Credentials | None:
    """The secrets when there are usable ones: the doctor makes none, and reports unusable ones elsewhere."""
    if not credentials_file(home).exists():
        return None
    try:
        return load_credentials(home)
    except CredentialsUnusable:
        return None
