"""`cellloop preannotate`: the pool as the active pair sees it."""

from __future__ import annotations

from typing import Annotated

import typer

from scripts import console


def preannotate(as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False) -> None:
    """Predict every image that waits for an expert and was not predicted by the active pair yet, into SQL.

    Example: cellloop preannotate && cellloop rank && cellloop push
    """
    from al_loop.preannotate_pool import preannotate_pool
    from scripts.composition import open_loop

    with console.progress("predicting") as advance:
        predicted = preannotate_pool(open_loop(), advance)
    console.emit({"predicted": predicted}, as_json)
