"""The report's curves and tables as pictures: precision-recall, FROC, calibration, confusion, parasitaemia.

Figures are made without pyplot: nothing global, no window, safe in any thread. Views have Okabe and Ito's colours and a
line style of their own, so that they can be told apart without colour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from al_loop.judge import FROC, VIEWS
from al_loop.judge_numbers import Verdict
from al_loop.metrics import POOLED, Matches
from backend.instances import CLASSES

STYLES: Mapping[str, dict[str, Any]] = {
    "all_cells": {"color": "#0072B2", "linestyle": "--", "marker": "s"},
    "infected": {"color": "#D55E00", "linestyle": ":", "marker": "^"},
    "fused": {"color": "#009E73", "linestyle": "-", "marker": "o"},
}
SHORT = {"red blood cell": "red", "nothing there": "nothing"}
GROUPS = {
    "infected": "P(infected), every detection",
    "suspected": "P(infected), where it is at least .05",
    "cell": "P(there is a cell)",
}

Verdicts = Mapping[str, Verdict]


def style(view: str, marker: bool = False) -> dict[str, Any]:
    """Colour, line and marker of a view, for any plotting call that draws lines."""
    found = dict(STYLES.get(view, STYLES[VIEWS[-1]]))
    return {**found, "linewidth": 1.8, "markersize": 5} if marker else {**found, "marker": "", "linewidth": 1.8}


def _figure(columns: int, rows: int = 1, side: float = 3.6) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(side * columns, side * rows), layout="constrained", dpi=130)
    found = np.atleast_1d(figure.subplots(rows, columns)).ravel().tolist()
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.1)  # type: ignore[union-attr,call-arg]
    return figure, found


def _square(axes: Axes, x: str, y: str, title: str) -> None:
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=x, ylabel=y)
    axes.set_title(title, fontsize=11)
    axes.set_aspect("equal")
    axes.grid(alpha=0.25)


def precision_recall(verdicts: Verdicts) -> Figure:
    """One panel per class that occurs, and one for the infected stages pooled; a curve per view."""
    first = next(iter(verdicts.values()))
    names = [name for name in (*CLASSES, POOLED) if any(_ap50(v, name) is not None for v in verdicts.values())]
    columns = min(4, max(1, len(names)))
    figure, panels = _figure(columns, max(1, -(-len(names) // columns)))
    for axes, name in zip(panels, names, strict=False):
        n = int(first.matches[name].truths.sum())
        title = "infected, stages pooled" if name == POOLED else name
        _square(axes, "recall", "precision", f"{title} (n = {n})")
        for view, verdict in verdicts.items():
            value = _ap50(verdict, name)
            if value is not None:
                axes.plot(*_curve(verdict.matches[name]), **style(view), label=f"{view}  {value:.3f}")
        axes.legend(title="AP50", fontsize=9, title_fontsize=9, loc="lower left")
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    return figure


def _ap50(verdict: Verdict, channel: str) -> float | None:
    return verdict.value("pooled_infected_ap50") if channel == POOLED else verdict.value("ap50", channel)


def _curve(matches: Matches) -> tuple[np.ndarray, np.ndarray]:
    hits, seen = np.cumsum(matches.hits), np.arange(1, len(matches.hits) + 1)
    recall, precision = hits / max(1, matches.truths.sum()), hits / seen
    return np.concatenate([[0.0], recall]), np.concatenate([precision[:1] if len(precision) else [0.0], precision])


def froc(verdicts: Verdicts) -> Figure:
    """Recall of infected cells against false positives per image, with 95 % intervals at the points of FROC."""
    figure = Figure(figsize=(6.4, 4.4), layout="constrained", dpi=130)
    axes = figure.subplots()
    for shift, (view, verdict) in zip((0.96, 1.0, 1.04), verdicts.items(), strict=False):
        matches = verdict.matches[POOLED]
        false = np.cumsum(~matches.hits) / len(matches.truths)
        recall = np.cumsum(matches.hits) / max(1, matches.truths.sum())
        axes.step(
            np.append(false, 100),
            np.append(recall, recall[-1] if len(recall) else 0.0),
            where="post",
            **style(view),
            alpha=0.6,
        )
        numbers = [verdict.numbers[f"infected_recall_at_{allowed:g}fp",] for allowed in FROC]
        known = [(x * shift, n.value, n.interval()) for x, n in zip(FROC, numbers, strict=True)]
        points = [(x, value, span) for x, value, span in known if value is not None and span is not None]
        if points:
            x, y = np.array([p[0] for p in points]), np.array([p[1] for p in points])
            spans = np.array([p[2] for p in points]).T
            bars = np.maximum(np.stack([y - spans[0], spans[1] - y]), 0)
            looks = {**style(view, marker=True), "linestyle": "none"}
            axes.errorbar(x, y, yerr=bars, label=view, capsize=3, **looks)
    axes.set(xscale="log", xlim=(0.05, 4), ylim=(-0.02, 1.02))
    axes.set_xticks(FROC, [f"{allowed:g}" for allowed in FROC])
    axes.minorticks_off()
    axes.set(xlabel="false positives per image", ylabel="recall of infected cells")
    axes.grid(alpha=0.25)
    axes.legend(loc="lower right", fontsize=10)
    return figure


def calibration(verdicts: Verdicts) -> Figure:
    """Reliability curves: observed frequency against what was claimed, in bins of equal mass, per group."""
    groups = [name for name in GROUPS if any(name in verdict.calibration for verdict in verdicts.values())]
    figure, panels = _figure(len(groups), side=4.2)
    for axes, group in zip(panels, groups, strict=True):
        _square(axes, "claimed probability", "observed frequency", GROUPS[group])
        axes.plot([0, 1], [0, 1], color="0.6", linewidth=1)
        for view, verdict in verdicts.items():
            error = verdict.numbers.get(("calibration_error", group))
            if error is not None and error.value is not None:
                claimed, observed, _ = verdict.calibration[group].curve()
                axes.plot(claimed, observed, **style(view, marker=True), label=f"{view}  {error.value:.3f}")
        if len(axes.lines) > 1:
            axes.legend(title="calibration error", fontsize=9, title_fontsize=9, loc="upper left")
    return figure


def confusion(verdicts: Verdicts) -> Figure:
    """True class by called class, counts; shaded by the share of the true class."""
    figure, panels = _figure(len(verdicts), side=5.2)
    true = [SHORT.get(name, name) for name in (*CLASSES, "nothing there")]
    called = [SHORT.get(name, name) for name in (*CLASSES, "missed")]
    for axes, (view, verdict) in zip(panels, verdicts.items(), strict=True):
        counts = verdict.decisions.confusion()
        share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for (row, column), count in np.ndenumerate(counts):
            if count:
                colour = "white" if share[row, column] > 0.55 else "black"
                axes.text(column, row, f"{count}", ha="center", va="center", fontsize=9, color=colour)
        axes.set_xticks(range(len(called)), called, rotation=40, ha="right", fontsize=10)
        axes.set_yticks(range(len(true)), true, fontsize=10)
        axes.set(xlabel="called", ylabel="truly")
        axes.set_title(f"{view}, P(cell) ≥ {verdict.decisions.threshold:g}", fontsize=11)
    return figure


def parasitaemia(verdicts: Verdicts) -> Figure | None:
    """Estimate against truth per image, and their difference (Bland-Altman); None when no view counts red cells."""
    shown = {view: verdict for view, verdict in verdicts.items() if ("parasitaemia", "mae") in verdict.numbers}
    if not shown:
        return None
    figure = Figure(figsize=(10.5, 4.6), layout="constrained", dpi=130)
    scatter, difference = figure.subplots(1, 2)
    top = 1.0
    for view, verdict in shown.items():
        counts, among = verdict.counts, verdict.counts.countable()
        truth, estimate = counts.true_percent()[among], counts.percent()[among]
        looks = {"color": STYLES[view]["color"], "marker": STYLES[view]["marker"], "linestyle": "none"}
        mae = verdict.value("parasitaemia", "mae")
        label = view if mae is None else f"{view}, mean absolute error {mae:.2f}"
        scatter.plot(truth, estimate, **looks, markersize=5, alpha=0.6, label=label)
        difference.plot((truth + estimate) / 2, estimate - truth, **looks, markersize=5, alpha=0.6, label=view)
        top = max([top, *truth, *estimate])
        for name, line in (("bias", "-"), ("limit_low", ":"), ("limit_high", ":")):
            level = verdict.value("parasitaemia", name)
            if level is not None:
                difference.axhline(level, color=STYLES[view]["color"], linestyle=line, linewidth=1.2)
    scatter.plot([0, top * 1.05], [0, top * 1.05], color="0.6", linewidth=1)
    scatter.set(xlabel="true parasitaemia, %", ylabel="counted parasitaemia, %")
    difference.set(xlabel="mean of true and counted, %", ylabel="counted - true, percentage points")
    difference.set_title("lines: bias, and the limits that hold 95 % of the differences", fontsize=10)
    for axes in (scatter, difference):
        axes.grid(alpha=0.25)
        axes.legend(fontsize=9)
    return figure


def figures(verdicts: Verdicts) -> dict[str, Figure]:
    """Every figure there is something to draw for, by the name of its file."""
    drawn = {
        "precision-recall": precision_recall(verdicts),
        "froc": froc(verdicts),
        "calibration": calibration(verdicts),
        "confusion": confusion(verdicts),
        "parasitaemia": parasitaemia(verdicts),
    }
    return {name: figure for name, figure in drawn.items() if figure is not None}


def order(views: Sequence[str]) -> list[str]:
    """The views in the order in which they are always shown."""
    return sorted(views, key=lambda view: (VIEWS.index(view) if view in VIEWS else len(VIEWS), view))
