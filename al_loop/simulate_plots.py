"""The curves of a simulation as pictures, in the style of `report_plots`: without pyplot, colours of Okabe and Ito."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter
from numpy.typing import NDArray

from al_loop.metrics import POOLED
from al_loop.simulate_numbers import EARLY, TARGET_SHARE, smoothed

Answer = Mapping[str, Any]
Floats = NDArray[np.float64]

STYLES: Mapping[str, dict[str, Any]] = {
    "ours": {"color": "#009E73", "linestyle": "-", "linewidth": 2.6, "zorder": 5},
    "entropy": {"color": "#D55E00", "linestyle": "--"},
    "random": {"color": "#555555", "linestyle": "-"},
    "whole-fields": {"color": "#000000", "linestyle": ":"},
    "margin": {"color": "#0072B2", "linestyle": "-."},
    "least-confidence": {"color": "#56B4E9", "linestyle": "--"},
    "disagreement": {"color": "#CC79A7", "linestyle": "-."},
    "rare-class": {"color": "#E69F00", "linestyle": "-"},
    "core-set": {"color": "#A08000", "linestyle": ":"},
    "typiclust": {"color": "#7B5EA7", "linestyle": (0, (5, 1, 1, 1))},
}
PLAIN = FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")
BANDS = ("ours", "entropy", "random")  # intervals of all would cover each other


def figures(answer: Answer) -> dict[str, Figure]:
    """Every picture by name."""
    return {
        "ap50_by_reviews": learning(answer, "reviews", 1.0, "cells reviewed"),
        "ap50_by_seconds": learning(answer, "seconds", 1 / 60, "expert's time, minutes"),
        "reviews_needed": reviews_needed(answer),
        "rare_shown": rare_shown(answer),
    }


def _axes(width: float = 7.6, height: float = 4.6) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained", dpi=110)
    axes = figure.subplots()
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def style(name: str) -> dict[str, Any]:
    """Colour and line of a strategy; a strategy without its own is drawn thin and grey."""
    return {"linewidth": 1.5, **STYLES.get(name, {"color": "#999999", "linestyle": "-"})}


def on_grid(curves: Sequence[Mapping[str, Any]], x: str, y: str, grid: Floats, smooth: bool) -> Floats:
    """(seeds, len(grid)) a column of each curve at the same places, lines over the logarithm; NaN behind its end."""
    found = []
    for curve in curves:
        values = np.asarray(curve[y], dtype=np.float64)
        at = np.log1p(np.asarray(curve[x], dtype=np.float64))
        found.append(np.interp(np.log1p(grid), at, smoothed(values) if smooth else values, right=np.nan))
    return np.array(found)


def learning(answer: Answer, x: str, scale: float, label: str) -> Figure:
    """Infected AP50 against `x` on a logarithmic axis: means over assignments, with bands of 95 % for three."""
    figure, axes = _axes()
    full = float(np.mean([exam["full"][POOLED] for exam in answer["exams"]]))
    least = min(float(curve[x][1]) for row in answer["strategies"].values() for curve in row["curves"])
    most = max(float(curve[x][-1]) for row in answer["strategies"].values() for curve in row["curves"])
    grid: Floats = np.geomspace(max(least, 1.0), most, 160).astype(np.float64)
    for name, row in answer["strategies"].items():
        values = on_grid(row["curves"], x, "infected_ap50", grid, smooth=True)
        reached = ~np.isnan(values).any(axis=0)
        mean = values[:, reached].mean(axis=0)
        axes.plot(grid[reached] * scale, mean, label=name, **style(name))
        if name in BANDS and len(values) > 1:
            reach = 1.96 * values[:, reached].std(axis=0, ddof=1) / np.sqrt(len(values))
            axes.fill_between(
                grid[reached] * scale, mean - reach, mean + reach, color=style(name)["color"], alpha=0.15, linewidth=0
            )
    for level, text in ((full, "all labels"), (TARGET_SHARE * full, "95 % of it")):
        axes.axhline(level, color="#888888", linewidth=0.9, linestyle=(0, (4, 3)))
        place = ((0.005, level), ("axes fraction", "data"))
        axes.annotate(text, place[0], xycoords=place[1], va="bottom", fontsize=8, color="#555555")
    axes.set(xscale="log", xlabel=label, ylabel="pooled infected AP50", xlim=(grid[0] * scale, grid[-1] * scale))
    axes.xaxis.set_major_formatter(PLAIN)
    axes.legend(fontsize=8.5, ncols=2, loc="lower right", frameon=False)
    return figure


def rare_shown(answer: Answer) -> Figure:
    """The share of the pool's schizonts and gametocytes shown, against the share of its cells reviewed."""
    figure, axes = _axes()
    grid = np.geomspace(1e-3, 1.0, 160)
    pools, rare = ([float(exam[key]) for exam in answer["exams"]] for key in ("pool", "rare"))
    for name, row in answer["strategies"].items():
        values = [
            np.interp(grid * pool, curve["reviews"], np.asarray(curve["rare_shown"]) / max(1.0, count), right=np.nan)
            for curve, pool, count in zip(row["curves"], pools, rare, strict=True)
        ]
        axes.plot(grid, np.mean(values, axis=0), label=name, **style(name))
    axes.plot([EARLY], [0.8], marker="+", color="#000000", markersize=12, linestyle="none")
    axes.annotate("wanted", (EARLY, 0.8), xytext=(6, -10), textcoords="offset points", fontsize=8)
    axes.set(xscale="log", xlabel="share of the pool's cells reviewed", ylabel="schizonts and gametocytes shown")
    axes.set(xlim=(grid[0], 1.0), ylim=(0, 1.02))
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.legend(fontsize=8.5, loc="upper left", frameon=False)
    return figure


def reviews_needed(answer: Answer) -> Figure:
    """Reviews to the target by strategy, geometric means over assignments with 95 % intervals, fewest on top."""
    means = {}
    for name, row in answer["strategies"].items():
        logs = np.log(np.maximum(row["reviews_needed"], 1.0))
        reach = 1.96 * logs.std(ddof=1) / np.sqrt(len(logs)) if len(logs) > 1 else 0.0
        means[name] = (np.exp(logs.mean()), np.exp(logs.mean() - reach), np.exp(logs.mean() + reach), row["censored"])
    names = sorted(means, key=lambda name: -means[name][0])
    figure, axes = _axes(7.6, 0.42 * len(names) + 1.1)
    for place, name in enumerate(names):
        value, low, high, censored = means[name]
        axes.barh(place, value, color=style(name)["color"], alpha=0.85, height=0.62)
        axes.plot([low, high], [place, place], color="#000000", linewidth=1.1)
        text = f"{value:,.0f}" + (f"  ({censored} never)" if censored else "")
        axes.annotate(text, (high, place), xytext=(6, 0), textcoords="offset points", va="center", fontsize=8.5)
    axes.set_yticks(range(len(names)), names)
    top = max(high for _, _, high, _ in means.values())
    axes.set(xscale="log", xlabel="cells reviewed until 95 % of what all labels give", xlim=(10, top * 4))
    axes.xaxis.set_major_formatter(PLAIN)
    axes.grid(axis="y", visible=False)
    return figure
