"""`cellloop label-studio start|connect|rotate`: Label Studio on this machine, and our projects in it."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING, Annotated

import typer

from scripts import console

if TYPE_CHECKING:
    from db.models import Project

app = typer.Typer(help="Label Studio on this machine, and our projects in it.", no_args_is_help=True)


@app.command()
def start() -> None:
    """Start Label Studio on loopback with its own data below the home folder, and stay until Ctrl-C.

    Example: CELLLOOP_LABEL_STUDIO_URL=http://127.0.0.1:8081 cellloop label-studio start
    """
    from backend.credentials import credentials_file
    from backend.label_studio.server import FIRST_START_S, LabelStudioServer
    from scripts.composition import label_studio_config, read_settings

    settings = read_settings()
    server = LabelStudioServer(label_studio_config(settings))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite kill ends the child too
    try:
        with console.progress("starting Label Studio") as advance:
            server.start(on_wait=lambda waited: advance(int(waited), int(FIRST_START_S), "s at most"))
        print(f"Label Studio: {server.url} as {server.config.email}")
        print(f"password and token: {credentials_file(settings.home)}; log: {server.config.log}")
        while server.pid is not None:
            time.sleep(0.5)
        console.fail(f"Label Studio ended by itself; the end of {server.config.log}: {server.log_tail()}")
    except KeyboardInterrupt:
        print("stopping Label Studio")
    finally:
        server.stop()


@app.command()
def connect(as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False) -> None:
    """Create our projects, of fields and of cells one by one: labels, images, order and webhooks. Repeatable.

    Example: cellloop serve & cellloop label-studio connect
    """
    from al_loop.connect import connect as connect_project
    from db import projects
    from db.models import Way
    from scripts.composition import open_loop

    loop = open_loop()
    project = connect_project(loop, loop.label_studio())
    with loop.database.session(read_only=True) as session:
        cells = projects.project(session, project.url, way=Way.cell)
    found = {"project": project.ls_project_id, "title": project.title, "page": data_page(project)}
    console.emit(found | ({"cells": data_page(cells)} if cells is not None else {}), as_json)


@app.command()
def rotate(as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False) -> None:
    """Replace the secrets that Label Studio and our backend show each other, while both go on serving. Repeatable.

    Example: cellloop label-studio rotate
    """
    from al_loop.rotate import rotate as rotate_secrets
    from scripts.composition import open_loop

    loop = open_loop()
    console.emit({"replaced": rotate_secrets(loop, loop.label_studio())}, as_json)


def data_page(project: Project) -> str:
    """Address of a project's tasks in Label Studio."""
    return f"{project.url}/projects/{project.ls_project_id}/data"
