"""Parasitaemia by image, slide, patient and period, of rows whose answers are known."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest

from backend.history.intervals import independent
from backend.history.parasitaemia import BY, Parasitaemia, by_group
from backend.instances import INFECTED

START = datetime(2026, 1, 30, 12, 0, tzinfo=UTC)


def field(
    image_id: int,
    slide: str,
    patient: str | None = None,
    cells: int = 100,
    source: str = "labels",
    at: datetime = START,
    **stages: int,
) -> dict[str, Any]:
    """A row of v_parasitaemia; stages: rings=2 and the like."""
    counts = {f"{stage}s": 0 for stage in INFECTED} | {"leukocytes": 0} | stages
    infected = sum(counts[f"{stage}s"] for stage in INFECTED)
    place = {"source": source, "image_id": image_id, "image": f"{image_id}.png", "slide": slide, "patient": patient}
    return {**place, "at": at, **counts, "infected": infected, "cells": cells}


ROWS = [
    field(1, "a", "ada", rings=2, leukocytes=1),
    field(2, "a", "ada", rings=1, trophozoites=1, leukocytes=1),
    field(3, "b", "ada", cells=50, at=START + timedelta(days=1)),
    field(4, "c", None, rings=10, at=START + timedelta(days=3)),
    field(5, "d", "bob", cells=0, at=START + timedelta(days=3)),
    field(1, "a", "ada", rings=5, source="pair-1"),
]


def of_labels(by: str) -> dict[str, Parasitaemia]:
    return {found.group: found for found in by_group(ROWS, by) if found.source == "labels"}


def test_an_image_has_the_interval_of_its_cells() -> None:
    found = by_group(ROWS, "image")
    assert [(f.source, f.group, f.image_id) for f in found][-2:] == [("labels", "5.png", 5), ("pair-1", "1.png", 1)]
    first = found[0]
    assert (first.cells, first.infected, first.percent, first.method) == (100, 2, 2.0, "wilson")
    shares = independent(np.array([2]), np.array([100]))
    assert (first.low, first.high) == pytest.approx((100 * shares.low[0], 100 * shares.high[0]))


def test_a_slide_rests_on_its_fields_a_patient_on_slides_a_period_on_patients() -> None:
    assert of_labels("slide")["a"].method == "clustered by 2 fields"
    assert of_labels("slide")["c"].method == "clustered by 1 field, correlation assumed"
    assert of_labels("patient")["ada"].method == "clustered by 2 slides"
    assert of_labels("all")["all"].method == "clustered by 2 patients"  # bob's field holds no cell
    nobody_known = by_group([{**row, "patient": None} for row in ROWS if row["source"] == "labels"], "all")
    assert nobody_known[0].method == "clustered by 3 slides"
    assert set(of_labels("patient")) == {"ada", "bob"}


def test_counts_add_up_and_more_fields_tell_more() -> None:
    slide = of_labels("slide")["a"]
    assert (slide.fields, slide.cells, slide.infected, slide.percent) == (2, 200, 4, 2.0)
    assert slide.low is not None
    assert slide.high is not None
    assert 0 < slide.low < 2 < slide.high
    more = by_group([field(i, "a", rings=2) for i in range(1, 30)], "slide")[0]
    assert more.high is not None
    assert more.high < slide.high
    whole = of_labels("all")["all"]
    assert (whole.fields, whole.cells, whole.infected) == (5, 350, 14)


def test_stages_are_shares_of_the_infected_cells() -> None:
    stages = of_labels("slide")["a"].stages
    assert {name: (share.count, share.percent) for name, share in stages.items()} == {
        "ring": (3, 75.0),
        "trophozoite": (1, 25.0),
        "schizont": (0, 0.0),
        "gametocyte": (0, 0.0),
    }
    high = stages["schizont"].high
    assert high is not None
    assert 40 < high < 100
    assert of_labels("slide")["b"].stages["ring"].percent is None


def test_parasites_per_microlitre_need_a_leukocyte() -> None:
    assert of_labels("slide")["a"].per_microlitre == 8000 * 4 / 2
    assert of_labels("slide")["b"].per_microlitre is None


def test_without_red_cells_there_is_no_parasitaemia() -> None:
    bob = of_labels("patient")["bob"]
    assert (bob.fields, bob.cells, bob.percent, bob.low, bob.high) == (1, 0, None, None, None)


@pytest.mark.parametrize(
    ("by", "names"),
    [
        ("day", ["2026-01-30", "2026-01-31", "2026-02-02"]),
        ("week", ["2026-W05", "2026-W06"]),
        ("month", ["2026-01", "2026-02"]),
    ],
)
def test_periods_are_in_utc(by: str, names: list[str]) -> None:
    assert sorted(of_labels(by)) == names
    late = datetime(2026, 2, 1, 0, 30, tzinfo=timezone(timedelta(hours=2)))  # still January in UTC
    assert by_group([field(1, "a", at=late)], by)[0].group == {"day": "2026-01-31", "week": "2026-W05"}.get(
        by, "2026-01"
    )


@pytest.mark.parametrize("by", BY)
def test_any_order_of_rows_gives_the_same_json(by: str) -> None:
    once, again = by_group(ROWS, by), by_group(reversed(ROWS), by)
    assert json.loads(json.dumps([found.to_json() for found in again])) == [found.to_json() for found in once]


def test_no_rows_and_an_unknown_group() -> None:
    assert by_group([], "slide") == []
    with pytest.raises(ValueError, match="image, slide, patient, day, week, month, all"):
        by_group(ROWS, "year")
