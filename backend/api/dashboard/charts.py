"""What a chart shows, as plain values. The page holds them as a table, and the script draws what the table says:
so a chart and its numbers cannot differ, and without the script nothing is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

# lines: one plot, a line a series. panels: a small plot per series, one below the other. bars: stacked.
# shares: bars that add up to 1. dots: one row per x, its value and interval from left to right.
# reliability: x against y, both from 0 to 1, with the diagonal that they should lie on.
Kind = Literal["lines", "panels", "bars", "shares", "dots", "reliability"]

PROMOTED, REFUSED, NO_DECISION = "promoted", "refused", ""


@dataclass(frozen=True)
class Point:
    """A number with its 95 % interval where it has one. None: undefined. n: what it rests on.

    at: where it lies from left to right, for kind `reliability`.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    at: float | None = None


@dataclass(frozen=True)
class Series:
    """One row of numbers, a point for every x."""

    name: str
    points: Sequence[Point]


@dataclass(frozen=True)
class Chart:
    """A title, what the numbers come to in a sentence, and the numbers.

    xs: what the points stand for, in order. marks: per x, what was decided then. counts: whether numbers are whole.
    """

    key: str  # of the page's element
    kind: Kind
    title: str
    summary: str
    x_name: str
    xs: Sequence[str]
    series: Sequence[Series]
    y_name: str = ""
    marks: Sequence[str] = field(default=())
    counts: bool = False
    links: Sequence[str] = field(default=())

    def __post_init__(self) -> None:
        for what, values in (*((one.name, one.points) for one in self.series), ("marks", self.marks or self.xs)):
            if len(values) != len(self.xs):
                raise ValueError(f"chart {self.key}, {what}: expected a value for {len(self.xs)} x, got {len(values)}")

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not any(point.value is not None for one in self.series for point in one.points)
