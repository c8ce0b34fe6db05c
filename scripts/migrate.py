"""`cellloop migrate`: bring the database to the tables this version needs."""

from __future__ import annotations

from typing import Annotated

import typer

from scripts import console


def migrate(
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit code 1 when a migration is due.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Create the tables, or bring them up to date. Repeating it changes nothing.

    Example: CELLLOOP_DATABASE_URL=postgresql+psycopg://cellloop@localhost/cellloop cellloop migrate
    """
    from backend.home import prepare_home
    from db import migrate as migrations
    from scripts.composition import read_settings

    settings = read_settings()
    prepare_home(settings.home)
    url = settings.database_url
    before = migrations.current(url)
    if not check:
        migrations.upgrade(url)
    now, due = migrations.current(url), migrations.pending(url)
    console.emit({"before": before, "now": now, "pending": due}, as_json)
    if check and due:
        raise typer.Exit(1)
