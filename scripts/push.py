"""`cellloop push`: pre-annotations and the review order into Label Studio."""

from __future__ import annotations

from typing import Annotated

import typer

from scripts import console


def push(as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False) -> None:
    """Give every image of the pool its task, its prediction and its place in the order. Repeatable.

    Example: cellloop preannotate && cellloop rank && cellloop push
    """
    from al_loop.push import push as push_to
    from scripts.composition import connected_projects, open_loop

    loop = open_loop()
    studio = loop.label_studio()
    reports = {}
    for project in connected_projects(loop):
        with console.progress(f"pushing to {project.title}") as advance:
            reports[project.title] = push_to(loop, studio, project, lambda d, t: advance(d, t, "")).to_json()
    console.emit(reports, as_json)
