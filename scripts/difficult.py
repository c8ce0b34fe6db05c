"""`cellloop difficult`: the cells that somebody could not decide, who has read them, and what became of them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from scripts import console
from scripts.options import Doubt


def difficult(
    state: Annotated[Doubt | None, typer.Option(help="Only those; default: all.")] = None,
    cell: Annotated[int | None, typer.Option(help="Id of a cell: everything ever said about it.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """List difficult cells: open ones wait for a second reader, confirmed ones had one, resolved ones train again.

    Example: cellloop difficult --state open
    """
    from db import difficult as doubts
    from db import readings
    from scripts.composition import open_loop

    with open_loop().database.session(read_only=True) as session:
        if cell is not None:
            rows = [asdict(reading) for reading in readings.history(session, cell)]
        else:
            wanted = doubts.Doubt(state.value) if state else None
            rows = [asdict(found) for found in doubts.difficult_cells(session, wanted)]
    if as_json:
        console.emit({"history" if cell is not None else "cells": rows}, as_json)
        return
    if cell is not None:
        console.table(
            ("when", "expert", "did", "label", "way"),
            [(row["decided_at"], row["expert"], row["action"], row["label"] or "-", row["way"]) for row in rows],
            title=f"Everything said about cell {cell}",
        )
        return
    console.table(
        ("cell", "image", "state", "label", "read by", "since"),
        [
            (
                row["cell_id"],
                row["image"],
                row["state"],
                row["label"] or "no cell",
                ", ".join(row["readers"]),
                row["since"],
            )
            for row in rows
        ],
        title=f"{len(rows)} difficult cells",
    )
