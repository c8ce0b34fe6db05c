"""What experts confuse, as a picture: the first answers against further ones. Made without pyplot, as the report is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from backend.history.agreement import ANSWERS, Agreement

SIDE = 5.2  # inches of one period
MOST = 12  # periods: more would be small


def confusion_plot(periods: Sequence[Agreement]) -> Figure:
    """One heat map for each of the last MOST periods: counts, shaded by their share of each first answer.

    Answers that nobody gave are left out.
    """
    periods = periods[-MOST:]
    tables = [np.array(period.confusion) for period in periods]
    total = sum(tables, np.zeros((len(ANSWERS), len(ANSWERS)), dtype=np.int64))
    used = np.flatnonzero(total.sum(axis=0) + total.sum(axis=1))
    names = [ANSWERS[index] for index in used]
    columns = min(3, max(1, len(periods)))
    rows = max(1, -(-len(periods) // columns))
    figure = Figure(figsize=(SIDE * columns, SIDE * rows), layout="constrained", dpi=130)
    panels = np.atleast_1d(figure.subplots(rows, columns)).ravel().tolist()
    for axes in panels[len(periods) :]:
        axes.set_axis_off()
    for axes, period, table in zip(panels, periods, tables, strict=False):
        counts = table[np.ix_(used, used)]
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for row, column in np.argwhere(counts > 0).tolist():
            ink = "white" if shares[row, column] > 0.6 else "black"
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=ink)
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
        axes.set_yticks(range(len(names)), names)
        axes.set(xlabel="further readers said", ylabel="the first reader said")
        axes.set_title(f"{period.period}: {period.cells} cells" + _kappa(period), fontsize=11)
    return figure


def _kappa(period: Agreement) -> str:
    value = period.cohen.value
    return "" if value is None else f", kappa {value:.2f} [{period.cohen.low:.2f}, {period.cohen.high:.2f}]"
