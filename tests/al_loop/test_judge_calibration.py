"""What is claimed of hand-made detections, and how often it is so."""

from __future__ import annotations

import numpy as np
import pytest

from al_loop.judge_calibration import calibration
from al_loop.judge_cells import assign
from backend.instances import CLASSES, INFECTED
from tests.al_loop.test_metrics import NOTHING, RED, RING, TROPHOZOITE, cells

WHOLE = np.ones((1, 1), dtype=np.int64)


def test_every_group_by_hand() -> None:
    """A right red cell, a ring called trophozoite, a spurious ring, and one in a region to ignore."""
    truth = cells((0, RED, 1), (50, RING, 1))
    seen = cells((0, RED, 0.9), (50, TROPHOZOITE, 0.8), (100, RING, 0.4), (200, RING, 0.7))
    region = np.array([[195, 5, 225, 35]])
    found = calibration([assign(truth, region, seen)], CLASSES)
    claims = {"infected": [0, 0.4, 0.8], "suspected": [0.4, 0.8], "top": [0.4, 0.8, 0.9], "cell": [0.4, 0.8, 0.9]}
    true = {"infected": [0, 0, 1], "suspected": [0, 1], "top": [0, 0, 1], "cell": [0, 1, 1]}
    assert set(found) == set(claims)
    for group, curve in found.items():
        claimed, observed, n = curve.curve()
        assert claimed == pytest.approx(claims[group]), group
        assert observed.tolist() == true[group], group
        assert curve.error(WHOLE)[0] == pytest.approx(np.abs(claimed - observed).mean())
        assert curve.bins_to_json()["n"] == n.tolist() == [1.0] * len(claims[group])


def test_a_detector_of_infected_cells_has_no_word_on_cells_in_general() -> None:
    found = calibration([assign(cells((0, RED, 1)), NOTHING, cells((0, RING, 0.5)))], INFECTED)
    assert set(found) == {"infected", "suspected", "top"}
