"""`cellloop rollback`: the version before serves again."""

from __future__ import annotations

from typing import Annotated

import typer

from scripts import console
from scripts.options import Role


def rollback(
    role: Annotated[Role, typer.Option(help="Which of the two detectors.")] = Role.infected,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "rolled back by a person",
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Let the version serve again that the active one replaced. Repeating it goes one further back.

    Example: cellloop rollback --role infected
    """
    from al_loop import promote as promoting
    from scripts.composition import open_loop

    loop = open_loop()
    decision = promoting.rollback(loop.database, role.value, reason=reason, store=loop.store)
    console.emit({"role": role.value, "active": decision.version_id, "replaced": decision.replaced_id}, as_json)
