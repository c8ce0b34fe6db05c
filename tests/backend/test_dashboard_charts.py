"""What charts are made of, from rows whose answers are written down here."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from backend.api.dashboard.calibration import expected_error, reliability
from backend.api.dashboard.charts import Chart, Point, Series
from backend.api.dashboard.life import Event, life_of_cell, life_of_image
from backend.api.dashboard.model_charts import RECALL, calibration, learning_curve, per_class
from backend.api.dashboard.people_charts import agreement_over_time, corrections, labels_per_day
from backend.api.dashboard.smear_counts import chart, counted, point
from backend.api.dashboard.view import age, interval, kind_of, letter_of, number
from backend.history.agreement import Readings, agreement

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def metric(evaluation: int, name: str, class_name: str, value: float | None, promoted: bool = True) -> dict[str, Any]:
    low, high = (None, None) if value is None else (value - 0.1, value + 0.1)
    return {
        "evaluation_id": evaluation, "candidate": evaluation + 1, "all_cells_version": 1, "promoted": promoted,
        "name": name, "class_name": class_name, "value": value, "low": low, "high": high, "n": 30,
    }  # fmt: skip


def test_the_learning_curve_tells_promoted_from_refused() -> None:
    rows = [metric(1, RECALL, "", 0.5), metric(2, RECALL, "", 0.4, promoted=False), metric(3, RECALL, "", 0.75)]
    found = learning_curve(rows)
    assert (found.xs, found.marks) == (["2", "3", "4"], ["promoted", "refused", "promoted"])
    assert [point.value for point in found.series[0].points] == [0.5, 0.4, 0.75]
    assert found.summary.startswith(
        "Version 4 finds 0.75 (0.65 to 0.85) of the infected cells at half a false positive per image, version 2 found "
        "0.50. 2 of the last 3 candidates were promoted"
    )
    assert learning_curve([]).empty


def test_a_class_that_the_split_lacks_is_named_and_not_drawn() -> None:
    rows = [metric(1, "ap50", "ring", 0.5), metric(1, "ap50", "leukocyte", None)]
    found = per_class(rows)
    assert [one.name for one in found.series] == ["ring"]
    assert "ring 0.50 (0.40 to 0.60)" in found.summary
    assert "no leukocyte" in found.summary


def test_reliability_by_hand() -> None:
    report = {"matches": {"infected": {"scores": [1.0, 0.95, 0.92, 0.14, 0.1], "hits": [1, 1, 0, 0, 0]}}}
    bins = reliability(report, "infected")
    assert [place for place, each in enumerate(bins) if each is not None] == [1, 9]
    last = bins[9]
    assert last is not None
    assert (last.n, round(last.said, 3), round(last.right, 3)) == (3, 0.957, 0.667)
    assert expected_error(bins) == pytest.approx((3 * (2.87 / 3 - 2 / 3) + 2 * 0.12) / 5)
    drawn = calibration(report, "cellloop-1.2")
    assert "infected 0.222" in drawn.summary
    assert drawn.series[0].points[9] == Point(last.right, last.low, last.high, 3, last.said)
    assert calibration({}, "").empty


def test_answers_per_day_keep_days_without_any() -> None:
    rows = [
        {"day": "2026-01-01", "label": "ring", "answers": 3},
        {"day": "2026-01-01", "label": None, "answers": 2},
        {"day": "2026-01-03", "label": "red blood cell", "answers": 4},
    ]
    found = labels_per_day(rows, date(2026, 1, 3), 3)
    counts = {one.name: [point.value for point in one.points] for one in found.series}
    assert counts == {"all answers": [5, 0, 4], "red blood cell": [0, 0, 4], "ring": [3, 0, 0], "no cell": [2, 0, 0]}
    assert found.summary == "9 answers in 3 days, 4 of them today; most on 01 Jan: 5."
    rare = labels_per_day(rows, date(2026, 1, 3), 3, classes=False)
    assert [one.name for one in rare.series] == ["all answers", "infected or difficult"]
    assert labels_per_day([], date(2026, 1, 3), 3).summary == "Nobody has answered anything in the last 3 days."


def test_correction_effort_adds_both_ways_of_a_pair() -> None:
    nothing = {"moved": 0, "relabelled": 0, "deleted": 0, "added": 0}
    rows = [
        {"pair": "cellloop-1.2", **nothing, "accepted": 6, "moved": 2},
        {"pair": "cellloop-1.2", **nothing, "accepted": 0, "relabelled": 2},
        {"pair": "cellloop-1.3", **nothing, "accepted": 9, "added": 1},
    ]
    found = corrections(rows)
    assert found.xs == ["1.2", "1.3"]
    assert [point.value for point in found.series[0].points] == [0.6, 0.9]
    assert found.summary == (
        "Experts changed 10\u202f% of what cellloop-1.3 had shown; with cellloop-1.2 it was 40\u202f%."
    )
    assert corrections(rows[2:]).summary == "Experts changed 10\u202f% of what cellloop-1.3 had shown."


def test_agreement_week_by_week() -> None:
    said = [(1, "ada", "ring"), (1, "ben", "ring"), (2, "ada", "schizont"), (2, "ben", "schizont")]
    columns = [list(column) for column in zip(*said, strict=True)]
    found = agreement_over_time(agreement(Readings(*columns, [NOON] * 4), "week"))
    assert (found.xs, found.series[0].points[0].value) == (["2026-W01"], 1.0)
    assert "the same about 100\u202f% of 2 cells" in found.summary
    assert agreement_over_time([]).empty


def test_parasitaemia_by_slide_and_by_patient() -> None:
    def row(image: int, source: str, slide: str, red: int, rings: int) -> dict[str, Any]:
        stages = {"gametocytes": 0, "schizonts": 0, "trophozoites": 0, "rings": rings, "leukocytes": 0}
        counts = {"cells": red + rings, "infected": rings, **stages}
        return {"slide": slide, "patient": "p", "image_id": image, "source": source, "at": NOON, **counts}

    rows = [row(1, "labels", "a", 90, 10), row(2, "labels", "a", 100, 0), row(3, "labels", "c", 100, 0)]
    rows += [row(1, "new", "a", 80, 20), row(1, "old", "a", 1, 99)]
    found = counted(rows, "slide", ["b", "a"], "new")
    assert [(slide.name, slide.of, slide.labelled is None) for slide in found] == [("b", "", True), ("a", "p", False)]
    assert point(found[1].labelled).value == pytest.approx(5.0)
    assert point(found[1].predicted).value == pytest.approx(20.0)
    assert chart(found, "new").summary.startswith("1 of 2 slides have completely labelled fields; the highest, a: 5.0")
    [patient] = counted(rows, "patient", ["p"], "new")
    assert (patient.of, point(patient.labelled).value) == ("a, c", pytest.approx(100 * 10 / 300))


def event(minute: int, name: str, **values: Any) -> dict[str, Any]:
    names = ("pair", "version_id", "label", "score", "probabilities", "source", "expert", "action", "reading")
    empty = dict.fromkeys((*names, "seconds", "way", "slot", "reason", "status", "cells"))
    return {**empty, "at": NOON + timedelta(minutes=minute), "event": name, **values}


def test_the_life_of_a_cell_in_sentences() -> None:
    shares = [0.2, 0.1, 0.7, 0, 0, 0]
    rows = [
        event(0, "predicted", pair="p1", label="ring", score=0.7, probabilities=shares, source="infected"),
        event(1, "queued", way="cell", slot="random", reason="why", expert="ada"),
        event(2, "answered", label=None, expert="ada", action="deleted", reading=1, seconds=4.0, way="cell"),
        *[event(3 + n, "trained", version_id=3 + n, label="ring", source="infected") for n in range(3)],
        event(9, "trained", version_id=9, label="schizont", source="infected"),
        event(10, "not seen", pair="p2"),
    ]
    assert [(each.what, each.detail) for each in life_of_cell(rows)] == [
        ("p1 saw a ring (0.70)", "ring 0.70, red blood cell 0.20, trophozoite 0.10; only infected saw it"),
        ("Put into the queue by itself, drawn at random", "why; in the hands of ada"),
        ("ada: no cell", "deleted, first reading, 4 s for the cell"),
        ("3 versions, 3 to 5, of infected learned from it, as ring", ""),
        ("Version 9 of infected learned from it, as schizont", ""),
        ("p2 saw no cell here", ""),
    ]


def test_the_life_of_an_image_in_sentences() -> None:
    rows = [
        event(0, "imported", reason="bbbc041"),
        event(1, "reviewed", expert="ada", status="skipped", way="field"),
        *[event(2 + n, "reviewed", expert="ben", status="submitted", way="cell", seconds=3.0) for n in range(4)],
    ]
    assert life_of_image(rows) == [
        Event(NOON, "Imported (bbbc041)"),
        Event(NOON + timedelta(minutes=1), "ada skipped the field", expert=True),
        Event(NOON + timedelta(minutes=2), "ben answered 4 of its cells one by one", expert=True),
    ]


def test_how_things_are_written() -> None:
    assert number(1234567) == "1\u202f234\u202f567"
    assert (number(None), number(0.125), number(0.125, 1)) == ("–", "0.12", "0.1")
    assert interval(Point(0.5, 0.25, 0.75), 1) == "0.5 (0.2 to 0.8)"
    assert [age(NOON - timedelta(minutes=m), NOON) for m in (0, 5, 90, 3000)] == [
        "less than a minute", "5\u00a0min", "1\u00a0h", "2\u00a0d",
    ]  # fmt: skip
    assert (kind_of("red blood cell"), kind_of("x y"), kind_of(None)) == ("red-blood-cell", "other", "no-cell")
    assert [letter_of(name) for name in ("red blood cell", "ring", "difficult", None)] == ["", "R", "?", "×"]


def test_a_chart_needs_a_point_for_every_x() -> None:
    with pytest.raises(ValueError, match="expected a value for 2 x, got 1"):
        Chart("key", "lines", "t", "s", "x", ["1", "2"], [Series("a", [Point(1.0)])])
