"""What `cellloop agreement` shows to a person: one block per period."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from backend.history.agreement import ANSWERS, Agreement, Estimate

WIDTH = 120
SHORT = {"red blood cell": "red"}


def show(periods: Sequence[Agreement]) -> None:
    """Print every period: experts by pair and together, then what the first and further readers said."""
    console = Console(width=WIDTH)
    if not periods:
        console.print("No cell was read by two experts yet.", highlight=False)
    for period in periods:
        console.print(_pairs(period))
        console.print(_confusion(period))


def _pairs(period: Agreement) -> Table:
    title = f"{period.period}: {period.cells} cells read by at least two of {len(period.experts)} experts"
    table = Table("", "cells", "same answer", "kappa, 95 % interval", title=title, title_justify="left")
    for pair in period.pairs:
        table.add_row(escape(f"{pair.first}, {pair.second}"), str(pair.cells), f"{pair.same:.0%}", _shown(pair.kappa))
    table.add_section()
    table.add_row("all pairs together (Cohen)", str(period.cells), f"{period.same:.0%}", _shown(period.cohen))
    table.add_row("all readers (Fleiss)", str(period.cells), "", _shown(period.fleiss))
    table.add_row("all readers (Krippendorff's alpha)", str(period.cells), "", _shown(period.alpha))
    return table


def _confusion(period: Agreement) -> Table:
    used = [k for k in range(len(ANSWERS)) if any(period.confusion[k]) or any(row[k] for row in period.confusion)]
    table = Table(
        title="first reader (rows), further readers (columns), and how often both say so", title_justify="left"
    )
    table.add_column("")
    for k in used:
        table.add_column(SHORT.get(ANSWERS[k], ANSWERS[k]), justify="right")
    table.add_column("both", justify="right")
    for k in used:
        counts = [str(period.confusion[k][column] or ".") for column in used]
        table.add_row(SHORT.get(ANSWERS[k], ANSWERS[k]), *counts, f"{period.specific.get(ANSWERS[k], 0):.0%}")
    return table


def _shown(number: Estimate) -> str:
    if number.value is None:
        return "undefined: everybody always said the same"
    return f"{number.value:.2f}  [{_bound(number.low)}, {_bound(number.high)}]"


def _bound(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
