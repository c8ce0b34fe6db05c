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
    """Let the version serve again that the active one replaced, with its predictions and its order.

    Repeating it goes one further back. A worker does later what cannot be done now.

    Example: cellloop rollback --role infected
    """
    from al_loop import rollback as rolling_back
    from scripts.composition import open_loop

    console.emit(rolling_back.rollback(open_loop(), role.value, reason=reason).to_json(), as_json)
