"""`cellloop token create|list|revoke`: who may use the dashboard and the REST API."""

from __future__ import annotations

from typing import Annotated

import typer

from scripts import console
from scripts.options import Scope

app = typer.Typer(help="Tokens of the dashboard and the REST API.", no_args_is_help=True)


@app.command()
def create(
    name: Annotated[str, typer.Option(help="Whose token, or what it is for.")],
    scope: Annotated[Scope, typer.Option(help="read: look; review: and take cells; operate: and decide what serves.")],
    expires_days: Annotated[float | None, typer.Option(min=0, help="Until then; default: until revoked.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Make a token and print it, this once: only its hash is kept. Any number are good side by side.

    To replace one without downtime: create the next, put it in place, revoke the first.

    Example: cellloop token create --name ada --scope operate --expires-days 90
    """
    from datetime import timedelta

    from backend import tokens
    from db.models import now
    from db.tokens import Scope as Kept
    from scripts.composition import open_loop

    until = None if expires_days is None else now() + timedelta(days=expires_days)
    issued = tokens.issue(open_loop().database, name, Kept(scope.value), until)
    if as_json:
        console.emit({"id": issued.id, "token": issued.text, "scope": scope.value, "expires_at": until}, as_json=True)
    else:
        print(issued.text)  # alone on stdout, to be piped to where it is kept


@app.command("list")
def list_(as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False) -> None:
    """Every token there ever was, by its id; never the tokens themselves.

    Example: cellloop token list
    """
    from backend.tokens import state_of
    from db import tokens
    from scripts.composition import open_loop

    with open_loop().database.session(read_only=True) as session:
        rows = [(row.id, row.name, row.scope, row.created_at, state_of(row)) for row in tokens.all_tokens(session)]
    columns = ("id", "name", "scope", "created_at", "state")
    if as_json:
        console.emit({"tokens": [dict(zip(columns, row, strict=True)) for row in rows]}, as_json=True)
    else:
        console.table(columns, rows, "Tokens")


@app.command()
def revoke(
    token_id: Annotated[int, typer.Argument(metavar="ID", help="Id of the token, as `cellloop token list` shows it.")],
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """End a token now, at every server, and every session of the dashboard that was opened with it.

    Example: cellloop token revoke 3
    """
    from db import tokens
    from scripts.composition import open_loop

    with open_loop().database.session() as session:
        row = tokens.revoke(session, token_id)
    console.emit({"id": row.id, "name": row.name, "revoked_at": row.revoked_at}, as_json)
