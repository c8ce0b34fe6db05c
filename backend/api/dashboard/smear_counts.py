"""Parasitaemia of slides and patients, by experts' labels and by the pair that serves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backend.api.dashboard.charts import Chart, Point, Series
from backend.api.dashboard.view import interval, number
from backend.history.parasitaemia import Parasitaemia, by_group

Row = Mapping[str, Any]

LABELS = "labels"  # the source of `v_parasitaemia` that is no pair


@dataclass(frozen=True)
class Counted:
    """A slide, or a patient, with what either source counted there; None where it counted nothing. of: of whom."""

    name: str
    of: str
    labelled: Parasitaemia | None
    predicted: Parasitaemia | None


def counted(rows: Sequence[Row], by: str, names: Sequence[str], pair: str | None) -> list[Counted]:
    """One per name, in that order. rows: of `v_parasitaemia`. by: slide or patient."""
    found = {(each.source, each.group): each for each in by_group(rows, by) if each.source in (LABELS, pair)}
    other = "patient" if by == "slide" else "slide"
    of: dict[str, set[str]] = {}
    for row in rows:
        of.setdefault(row[by], set()).update([row[other]] if row[other] else [])
    return [
        Counted(name, ", ".join(sorted(of.get(name, ()))), found.get((LABELS, name)), found.get((pair or "", name)))
        for name in names
    ]


def point(found: Parasitaemia | None) -> Point:
    """Percent of all red cells with its interval."""
    return Point(None) if found is None else Point(found.percent, found.low, found.high, found.cells)


def chart(slides: Sequence[Counted], pair: str | None) -> Chart:
    """Parasitaemia of these slides by both sources."""
    labelled = {slide.name: point(slide.labelled) for slide in slides if point(slide.labelled).value is not None}
    highest = max(labelled, key=lambda name: labelled[name].value or 0.0, default="")
    series = [Series(LABELS, [point(slide.labelled) for slide in slides])]
    if pair is not None:
        series.append(Series(pair, [point(slide.predicted) for slide in slides]))
    return Chart(
        key="parasitaemia",
        kind="dots",
        title="Parasitaemia by slide",
        summary=f"{number(len(labelled))} of {number(len(slides))} slides have completely labelled fields; the "
        f"highest, {highest}: {interval(labelled[highest], 1)} %."
        if labelled
        else "No slide has a completely labelled field yet.",
        x_name="slide",
        xs=[slide.name for slide in slides],
        y_name="infected among red cells, %",
        series=series,
    )
