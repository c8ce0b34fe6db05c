"""Make Label Studio ours: the project, its image storage, our ML backend and the webhook. Safe to repeat."""

from __future__ import annotations

import logging

from al_loop.context import Loop
from backend.errors import LabelStudioRefused
from backend.label_studio.client import LabelStudio
from backend.label_studio.connections import ensure_image_storage, ensure_ml_backend, ensure_webhook
from backend.label_studio.label_config import default_config, parse
from db import projects
from db.models import Project

log = logging.getLogger("cellloop.connect")


def connect(loop: Loop, label_studio: LabelStudio) -> Project:
    """The project we serve, found by its title or created, with everything it needs to call us.

    A project that people have configured keeps its labelling configuration. Label Studio must reach our backend for
    the ML backend to be connected; while it does not, the rest is set up and a warning says what to do. Raises
    UnusableLabelConfig when the project has no control for our cells.
    """
    settings = loop.settings
    title = settings.label_studio_project
    found = label_studio.projects(title)
    project = found[0] if found else label_studio.create_project(title, default_config())
    parse(project.label_config)
    ensure_image_storage(label_studio, project.id, settings.files / "images")
    credentials = loop.credentials
    try:
        ensure_ml_backend(
            label_studio, project.id, settings.backend_url, credentials.basic_user, credentials.basic_password
        )
    except LabelStudioRefused as error:
        log.warning("the ML backend is not connected yet (%s); start `cellloop serve`, then connect again", error)
    webhook = f"{settings.backend_url}/webhook"
    headers = {"Authorization": f"Bearer {credentials.webhook_secret}"}
    ensure_webhook(label_studio, project.id, webhook, headers)
    with loop.database.session() as session:
        return projects.upsert_project(
            session, url=label_studio.url, ls_project_id=project.id, title=title, label_config=project.label_config
        )
