from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings

from al_loop.compare_fusion import (
    COMPETITORS,
    by_class,
    nms_by_class,
    nms_of_both,
    ours,
    union,
    wbf_by_class,
    wbf_of_both,
)
from backend.errors import ComparisonUnavailable
from backend.fuse import FusionConfig
from backend.instances import CLASS_INDEX, Instances
from tests.backend.views import SIZE, all_cells_views, infected_views, view

HERE, NEAR, FAR = (100.0, 100.0, 150.0, 150.0), (104.0, 100.0, 154.0, 150.0), (400.0, 300.0, 460.0, 360.0)
RED, RING = CLASS_INDEX["red blood cell"], CLASS_INDEX["ring"]

# One cell that `all_cells` calls red and `infected` a ring, and one healthy cell that only `all_cells` can know.
ALL_CELLS = view((HERE, {"red blood cell": 0.8, "ring": 0.1}), (FAR, {"red blood cell": 0.9}))
INFECTED = view((NEAR, {"ring": 0.6}))
NOTHING = Instances.empty(SIZE)


def rows(found: Instances) -> list[tuple[str, float]]:
    return sorted((name, round(float(score), 3)) for name, score in zip(found.class_names(), found.scores, strict=True))


def test_plain_nms_keeps_the_surest_box_and_loses_the_ring() -> None:
    found = nms_of_both(ALL_CELLS, INFECTED)
    assert rows(found) == [("red blood cell", 0.9), ("red blood cell", 0.9)]
    assert sorted(found.probabilities[:, RING].tolist()) == pytest.approx([0.0, 0.1])


def test_nms_by_class_leaves_one_cell_twice() -> None:
    assert rows(nms_by_class(ALL_CELLS, INFECTED)) == [
        ("red blood cell", 0.8),
        ("red blood cell", 0.9),
        ("ring", 0.6),
    ]


def test_weighted_boxes_fusion_halves_what_one_model_alone_can_see() -> None:
    found = wbf_by_class(ALL_CELLS, INFECTED)
    assert rows(found) == [("red blood cell", 0.4), ("red blood cell", 0.45), ("ring", 0.35)]
    (ring,) = found.boxes[found.labels == RING]
    assert ring == pytest.approx([(0.1 * 100 + 0.6 * 104) / 0.7, 100, (0.1 * 150 + 0.6 * 154) / 0.7, 150], abs=1e-3)


def test_weighted_boxes_fusion_whatever_the_class_averages_distributions() -> None:
    found = wbf_of_both(ALL_CELLS, INFECTED)
    (cell,) = np.flatnonzero(found.boxes[:, 0] < 200)
    assert len(found) == 2
    assert found.probabilities[cell, [RED, RING]].tolist() == pytest.approx([0.4, 0.35])
    assert found.probabilities[1 - cell].sum() == pytest.approx(0.45)
    assert found.boxes[cell, 0] == pytest.approx((0.9 * 100 + 0.6 * 104) / 1.5)


def test_ours_calls_it_a_ring_once_and_keeps_the_healthy_cell() -> None:
    found = ours(FusionConfig())(ALL_CELLS, INFECTED)
    assert sorted(found.class_names()) == ["red blood cell", "ring"]
    assert found.scores[found.labels == RED].tolist() == pytest.approx([0.9], abs=0.02)


@pytest.mark.parametrize("name", COMPETITORS)
def test_nothing_seen_is_nothing_fused(name: str) -> None:
    assert len(COMPETITORS[name](NOTHING, NOTHING)) == 0
    assert COMPETITORS[name](NOTHING, NOTHING).image_size == SIZE


@settings(max_examples=25, deadline=None)
@given(all_cells_views, infected_views)
def test_ways_that_treat_both_alike_do_not_care_which_is_which(a: Instances, b: Instances) -> None:
    for way in (nms_of_both, nms_by_class, wbf_of_both, wbf_by_class):
        here, there = way(a, b), way(b, a)
        assert len(here) == len(there)
        assert np.sort(here.scores) == pytest.approx(np.sort(there.scores), abs=1e-4)


@settings(max_examples=25, deadline=None)
@given(all_cells_views)
def test_two_detectors_of_one_mind_change_nothing_in_ours(a: Instances) -> None:
    found = ours(FusionConfig())(a, a)
    assert len(found) == len(a)
    assert np.sort(found.boxes, axis=0) == pytest.approx(np.sort(a.boxes, axis=0), abs=1e-2)


def test_union_and_classes() -> None:
    assert len(union(ALL_CELLS, INFECTED)) == 3
    assert rows(by_class(ALL_CELLS)) == [("red blood cell", 0.8), ("red blood cell", 0.9), ("ring", 0.1)]


def test_without_the_package_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ensemble_boxes", None)
    with pytest.raises(ComparisonUnavailable, match=r"pip install -e '\.\[dev\]'"):
        wbf_by_class(ALL_CELLS, INFECTED)
