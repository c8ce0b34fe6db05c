"""`cellloop agreement`: how far experts agree on the cells that several of them read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scripts import console
from scripts.options import Period


def agreement(
    period: Annotated[Period, typer.Option(help="One table for each.")] = Period.all,
    imports: Annotated[bool, typer.Option("--imports", help="Imported labels are the answers of one more.")] = False,
    plot: Annotated[Path | None, typer.Option(help="PNG file for a heat map of what experts confuse.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Cohen's and Fleiss' kappa, Krippendorff's alpha, and what the experts confuse, from double readings.

    Example: cellloop agreement --period month --plot confusion.png
    """
    from al_loop.agreement_plot import confusion_plot
    from backend.history.agreement import Readings
    from backend.history.agreement import agreement as agree
    from db.double_readings import double_readings
    from scripts.agreement_table import show
    from scripts.composition import open_loop

    with open_loop().database.session(read_only=True) as session:
        found = double_readings(session, imports)
    columns = [(r.cell_id, r.expert, r.label, r.decided_at) for r in found]
    periods = agree(Readings(*zip(*columns, strict=True)) if columns else Readings([], [], [], []), period.value)
    if plot is not None:
        confusion_plot(periods).savefig(plot, format="png")
    if as_json:
        console.emit({"periods": [each.to_json() for each in periods]}, as_json)
    else:
        show(periods)
