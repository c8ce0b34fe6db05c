"""Charts about experts' work: answers per day and class, and how much of the pre-annotation they correct."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any

from backend.api.dashboard.charts import Chart, Point, Series
from backend.api.dashboard.view import interval, number, percent
from backend.history.agreement import NO_CELL, Agreement, Estimate
from backend.instances import DIFFICULT, INFECTED
from backend.label_studio.label_config import COLOURS

Row = Mapping[str, Any]

OUTCOMES = ("accepted", "moved", "relabelled", "deleted", "added")
ALL = "all answers"
RARE = "infected or difficult"


def labels_per_day(rows: Sequence[Row], today: date, days: int, *, classes: bool = True) -> Chart:
    """Answers of experts per day, all together and by what they said. rows: `day`, `label`, `answers`.

    classes: each by itself; else only those that make a model learn, together.
    """
    span = [today - timedelta(days=back) for back in reversed(range(days))]
    given: dict[str, dict[str, int]] = {}
    for row in rows:
        rare = RARE if row["label"] in (*INFECTED, DIFFICULT) else ""
        for name in (ALL, (row["label"] or NO_CELL) if classes else rare):
            of = given.setdefault(name, {})
            of[row["day"]] = of.get(row["day"], 0) + row["answers"]
    names = [name for name in (ALL, RARE, *COLOURS, NO_CELL) if name in given]
    per_day = [given.get(ALL, {}).get(day.isoformat(), 0) for day in span]
    busiest = span[per_day.index(max(per_day))]
    return Chart(
        key="labels-per-day",
        kind="panels",
        title="Answers per day and class" if classes else "Answers per day",
        summary=f"{number(sum(per_day))} answers in {days} days, {number(per_day[-1])} of them today; most on "
        f"{busiest:%d %b}: {number(max(per_day))}."
        if any(per_day)
        else f"Nobody has answered anything in the last {days} days.",
        x_name="day",
        xs=[f"{day:%d %b}" for day in span],
        series=[Series(name, [Point(given[name].get(day.isoformat(), 0)) for day in span]) for name in names],
        counts=True,
    )


def corrections(rows: Sequence[Row]) -> Chart:
    """What experts did to the cells each pair had shown them. rows: of `v_corrections`."""
    by_pair: dict[str, dict[str, int]] = {}
    for row in rows:
        of = by_pair.setdefault(row["pair"], dict.fromkeys(OUTCOMES, 0))
        for outcome in OUTCOMES:
            of[outcome] += int(row[outcome])
    totals = {pair: sum(of.values()) for pair, of in by_pair.items()}
    efforts = {pair: 1 - of["accepted"] / totals[pair] for pair, of in by_pair.items() if totals[pair]}
    return Chart(
        key="corrections",
        kind="shares",
        title="Correction effort by model pair",
        summary=_effort(efforts),
        x_name="pair: version of all_cells, version of infected",
        xs=[pair.removeprefix("cellloop-") for pair in by_pair],
        y_name="of all cells",
        series=[
            Series(outcome, [Point(of[outcome] / totals[pair], n=of[outcome]) for pair, of in by_pair.items()])
            for outcome in OUTCOMES
        ],
    )


def _effort(efforts: Mapping[str, float]) -> str:
    if not efforts:
        return "No pre-annotation was answered yet."
    (first, before), *_, (last, now) = [*efforts.items(), *efforts.items()]
    text = f"Experts changed {percent(now)} of what {last} had shown"
    return f"{text}." if first == last else f"{text}; with {first} it was {percent(before)}."


def agreement_over_time(weeks: Sequence[Agreement]) -> Chart:
    """Agreement beyond chance, week by week."""
    newest = weeks[-1] if weeks else None
    beyond = f"beyond chance (Cohen's kappa): {interval(_estimated(newest.cohen))}." if newest else ""
    return Chart(
        key="agreement",
        kind="lines",
        title="Agreement of experts",
        summary=f"In {newest.period} they said the same about {percent(newest.same)} of {number(newest.cells)} cells "
        f"that several of them had read; {beyond}"
        if newest
        else "No cell was read by two experts yet.",
        x_name="week",
        xs=[each.period for each in weeks],
        y_name="1: always the same",
        series=[
            Series("Cohen's kappa", [_estimated(each.cohen) for each in weeks]),
            Series("Krippendorff's alpha", [_estimated(each.alpha) for each in weeks]),
        ],
    )


def _estimated(found: Estimate) -> Point:
    return Point(found.value, found.low, found.high)
