"""Parasitaemia of slides, added up from their images, by experts' labels and by the pair that serves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backend.api.dashboard.calibration import wilson
from backend.api.dashboard.charts import Chart, Point, Series
from backend.api.dashboard.view import interval, number
from backend.instances import INFECTED

Row = Mapping[str, Any]

LABELS = "labels"  # the source of `v_parasitaemia` that is no pair


@dataclass(frozen=True)
class Count:
    """What one source counted on a slide. cells: red cells, infected or not. stages: infected cells by stage."""

    images: int
    cells: int
    infected: int
    stages: Mapping[str, int]

    @property
    def parasitaemia(self) -> Point:
        """Infected among all red cells in percent, with Wilson's 95 % interval."""
        if not self.cells:
            return Point(None)
        share = self.infected / self.cells
        low, high = wilson(share, self.cells)
        return Point(100 * share, 100 * low, 100 * high, self.cells)


@dataclass(frozen=True)
class Slide:
    """A slide with what experts counted on it and what the pair that serves did; `patients` it is of."""

    name: str
    patients: str
    images: int
    labelled: Count
    predicted: Count


def slides(names: Sequence[str], rows: Sequence[Row], pair: str | None) -> list[Slide]:
    """One per name, in that order. rows: of `v_parasitaemia`."""
    by_name: dict[str, list[Row]] = {name: [] for name in names}
    for row in rows:
        by_name[row["slide"]].append(row)
    return [
        Slide(
            name,
            ", ".join(sorted({row["patient"] for row in of if row["patient"]})),
            len({row["image_id"] for row in of}),
            _count([row for row in of if row["source"] == LABELS]),
            _count([row for row in of if row["source"] == pair]),
        )
        for name, of in by_name.items()
    ]


def _count(rows: Sequence[Row]) -> Count:
    stages = {stage: sum(int(row[f"{stage}s"]) for row in rows) for stage in INFECTED}
    return Count(len(rows), sum(int(row["cells"]) for row in rows), sum(int(row["infected"]) for row in rows), stages)


def chart(found: Sequence[Slide], pair: str | None) -> Chart:
    """Parasitaemia of these slides by both sources."""
    labelled = [slide for slide in found if slide.labelled.cells]
    highest = max(labelled, key=lambda slide: slide.labelled.infected / slide.labelled.cells, default=None)
    series = [Series("labels", [slide.labelled.parasitaemia for slide in found])]
    if pair is not None:
        series.append(Series(pair, [slide.predicted.parasitaemia for slide in found]))
    return Chart(
        key="parasitaemia",
        kind="dots",
        title="Parasitaemia by slide",
        summary="No slide has a completely labelled field yet."
        if highest is None
        else f"{number(len(labelled))} of {number(len(found))} slides have completely labelled fields; the highest, "
        f"{highest.name}: {interval(highest.labelled.parasitaemia, 1)} %.",
        x_name="slide",
        xs=[slide.name for slide in found],
        y_name="infected among red cells, %",
        series=series,
    )
