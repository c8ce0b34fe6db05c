"""`cellloop rank`: the order in which experts see the pool."""

from __future__ import annotations

from typing import Annotated

import typer

from scripts import console


def rank(as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False) -> None:
    """Score every predicted cell and every image that waits, with every term of it, into the review queue.

    Example: cellloop rank --json
    """
    from al_loop.rank import rank as rank_pool
    from scripts.composition import open_loop

    console.emit(rank_pool(open_loop().database).to_json(), as_json)
