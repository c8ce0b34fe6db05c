"""Make Label Studio ours: a project of fields and one of cells, with all they need to reach us. Safe to repeat."""

from __future__ import annotations

from al_loop.context import Loop
from backend.errors import LabelStudioRefused, NotConnected, UnusableLabelConfig
from backend.label_studio.cell_config import default_cell_config, parse_cells
from backend.label_studio.client import LabelStudio
from backend.label_studio.connections import ensure_image_storage, ensure_ml_backend, ensure_webhook
from backend.label_studio.label_config import default_config, parse
from backend.label_studio.protocol import Project as LabelStudioProject
from db import projects
from db.models import Project, Way

CELLS = " · cells"  # behind the title of the project of fields


def connect(loop: Loop, label_studio: LabelStudio) -> Project:
    """The project of whole fields, found by its title or created, with everything it needs to call us; and beside it
    the project of single cells, "<title> · cells".

    A project that people have configured keeps its labelling configuration. Label Studio must reach our backend for
    the ML backend to be connected; while it does not, everything else is set up before NotConnected is raised. Raises
    UnusableLabelConfig, before anything is touched, when a project has no control for our cells.
    """
    settings = loop.settings
    title = settings.label_studio_project
    found = label_studio.projects(title)
    project = found[0] if found else label_studio.create_project(title, default_config())
    try:
        parse(project.label_config)
    except UnusableLabelConfig as error:
        raise UnusableLabelConfig(f"project {title} ({project.id}): {error}") from error
    cells = _cells_project(label_studio, title)
    ensure_image_storage(label_studio, project.id, settings.files / "images")
    credentials = loop.credentials
    refusal: LabelStudioRefused | None = None
    try:
        ensure_ml_backend(
            label_studio, project.id, settings.backend_url, credentials.basic_user, credentials.basic_password
        )
    except LabelStudioRefused as error:
        refusal = error
    webhook = f"{settings.backend_url}/webhook"
    headers = {"Authorization": f"Bearer {credentials.webhook_secret}"}
    for served in (project, cells):
        ensure_webhook(label_studio, served.id, webhook, headers)
    with loop.database.session() as session:
        projects.upsert_project(
            session,
            url=label_studio.url,
            ls_project_id=cells.id,
            title=cells.title,
            label_config=cells.label_config,
            way=Way.cell,
        )
        ours = projects.upsert_project(
            session, url=label_studio.url, ls_project_id=project.id, title=title, label_config=project.label_config
        )
    if refusal is not None:
        raise NotConnected(
            f"project {title} is ready, but Label Studio does not reach our backend at {settings.backend_url}; "
            f"start `cellloop serve` (CELLLOOP_BACKEND_URL: its address as Label Studio sees it), then connect again "
            f"({str(refusal)[:160]})"
        )
    return ours


def _cells_project(label_studio: LabelStudio, title: str) -> LabelStudioProject:
    """The project of single cells, found by its title or created."""
    title = f"{title}{CELLS}"
    found = label_studio.projects(title)
    if not found:
        # The predictions there hold nothing but the order: shown, each would only be one more empty tab.
        return label_studio.create_project(title, default_cell_config(), show_collab_predictions=False)
    try:
        parse_cells(found[0].label_config)
    except UnusableLabelConfig as error:
        raise UnusableLabelConfig(f"project {title} ({found[0].id}): {error}") from error
    return found[0]
