"""`cellloop sync`: reviews from Label Studio into SQL, now."""

from __future__ import annotations

from typing import Annotated

import typer

from scripts import console


def sync(as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False) -> None:
    """Read every review that is not in SQL yet. The worker does this all the time; repeating it adds nothing.

    Example: cellloop sync --json
    """
    from al_loop.sync import sync as sync_from
    from scripts.composition import connected_projects, open_loop

    loop = open_loop()
    studio = loop.label_studio()
    console.emit({p.title: sync_from(loop, studio, p).to_json() for p in connected_projects(loop)}, as_json)
