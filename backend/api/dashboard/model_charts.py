"""Charts about models: what candidates scored, class by class, and whether probabilities mean what they say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backend.api.dashboard.calibration import CHANNELS, Bin, expected_error, reliability
from backend.api.dashboard.charts import PROMOTED, REFUSED, Chart, Point, Series
from backend.api.dashboard.view import interval, number
from backend.instances import CLASSES

Row = Mapping[str, Any]

RECALL = "infected_recall_at_0.5fp"
POOLED = {
    RECALL: "infected recall at 0.5 false positives per image",
    "pooled_infected_ap50": "infected AP50",
    "mean_ap50": "mean AP50 of all classes",
}


def learning_curve(rows: Sequence[Row]) -> Chart:
    """What every candidate scored on the frozen test split, and what was decided. rows: of `v_metrics`."""
    candidates = _by_evaluation(rows)
    series = [
        Series(title, [_point(numbers.get((name, ""))) for numbers in candidates.values()])
        for name, title in POOLED.items()
    ]
    return Chart(
        key="learning-curve",
        kind="lines",
        title="Learning curve",
        summary=_story(candidates, series[0]),
        x_name="version",
        xs=[_name(numbers) for numbers in candidates.values()],
        y_name="on the test split",
        series=series,
        marks=_marks(candidates),
    )


def per_class(rows: Sequence[Row]) -> Chart:
    """AP50 of each class over the candidates; classes without a cell in the test split are left out."""
    candidates = _by_evaluation(rows)
    series = [
        Series(name, [_point(numbers.get(("ap50", name))) for numbers in candidates.values()]) for name in CLASSES
    ]
    known = [one for one in series if any(point.value is not None for point in one.points)]
    absent = [one.name for one in series if one not in known]
    last = [f"{one.name} {interval(one.points[-1])}" for one in known]
    return Chart(
        key="per-class",
        kind="panels",
        title="AP50 of each class",
        summary=(f"The newest candidate: {'; '.join(last)}." if last else "Nothing was measured yet.")
        + (f" No {' and no '.join(absent)} in the test split." if known and absent else ""),
        x_name="version",
        xs=[_name(numbers) for numbers in candidates.values()],
        series=known,
        marks=_marks(candidates),
    )


def calibration(report: Mapping[str, Any], pair: str) -> Chart:
    """Said and found probabilities of the pair that serves. report: of its newest evaluation, {} without any."""
    found = {channel: bins for channel in CHANNELS if (bins := reliability(report, channel))}
    count = max(map(len, found.values()), default=0)
    errors = [f"{name} {number(expected_error(bins), 3)}" for name, bins in found.items()]
    return Chart(
        key="calibration",
        kind="reliability",
        title="Calibration",
        summary=f"Of the detections of {pair} on the test split, the share that was right, by what the pair said. "
        f"Expected calibration error: {', '.join(errors)}; 0 would be perfect."
        if found
        else "The pair that serves was not measured on a test split yet.",
        x_name="probability said",
        xs=[f"{place / count:.1f} to {(place + 1) / count:.1f}" for place in range(count)],
        y_name="share that was right",
        series=[Series(name, [_reliable(each) for each in bins]) for name, bins in found.items()],
    )


def _reliable(found: Bin | None) -> Point:
    return Point(None) if found is None else Point(found.right, found.low, found.high, found.n, found.said)


def _by_evaluation(rows: Sequence[Row]) -> dict[int, dict[tuple[str, str], Row]]:
    found: dict[int, dict[tuple[str, str], Row]] = {}
    for row in rows:
        found.setdefault(row["evaluation_id"], {})[row["name"], row["class_name"]] = row
    return found


def _point(row: Row | None) -> Point:
    return Point(None) if row is None else Point(row["value"], row["low"], row["high"], row["n"] or None)


def _any(numbers: Mapping[tuple[str, str], Row]) -> Row:
    return next(iter(numbers.values()))


def _name(numbers: Mapping[tuple[str, str], Row]) -> str:
    row = _any(numbers)
    other = row["candidate"] == row["all_cells_version"]
    return f"{row['candidate']} (all_cells)" if other else str(row["candidate"])


def _marks(candidates: Mapping[int, Mapping[tuple[str, str], Row]]) -> list[str]:
    return [PROMOTED if _any(numbers)["promoted"] else REFUSED for numbers in candidates.values()]


def _story(candidates: Mapping[int, Mapping[tuple[str, str], Row]], recall: Series) -> str:
    if not candidates:
        return "No candidate was measured on a test split yet."
    promoted = [place for place, mark in enumerate(_marks(candidates)) if mark == PROMOTED]
    names = [_name(numbers) for numbers in candidates.values()]
    text = f"{len(promoted)} of the last {len(candidates)} candidates were promoted (filled, ▲), the others refused."
    if not promoted:
        return text
    first, last = promoted[0], promoted[-1]
    now = f"Version {names[last]} finds {interval(recall.points[last])} of the infected cells"
    before = f", version {names[first]} found {number(recall.points[first].value)}" if first != last else ""
    return f"{now} at half a false positive per image{before}. {text}"
