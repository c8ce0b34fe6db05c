"""Decisions, counts and calibration on hand-made cells."""

from __future__ import annotations

import numpy as np
import pytest

from al_loop.judge_cells import NOTHING, Decisions, assign, best_decisions
from al_loop.judge_counts import Counts, Reliability, agreement, parasitaemia
from backend.instances import CLASSES, INFECTED_INDEX, Instances
from tests.al_loop.test_metrics import NOTHING as NO_REGIONS
from tests.al_loop.test_metrics import RED, RING, TROPHOZOITE, cells

ONCE = np.ones((1, 1), dtype=np.int64)


def test_each_cell_has_one_detection_and_the_surest_goes_first() -> None:
    found = assign(cells((0, RED, 1), (50, RING, 1)), NO_REGIONS, cells((1, RED, 0.6), (2, RING, 0.9), (90, RED, 0.5)))
    assert found.truth.tolist() == [-1, 0, -1]
    assert found.true_class().tolist() == [NOTHING, RED, NOTHING]
    assert found.counted.all()
    assert found.is_infected().tolist() == [False, False, False]


def test_confusion_holds_missed_and_spurious_cells() -> None:
    truth = cells((0, RED, 1), (50, RING, 1), (100, RING, 1), (150, TROPHOZOITE, 1))
    seen = cells((0, RED, 0.9), (50, TROPHOZOITE, 0.9), (100, RING, 0.3), (200, RING, 0.9))
    table = assign(truth, NO_REGIONS, seen).confusion(0.5)
    wanted = np.zeros_like(table)
    wanted[RED, RED] = wanted[RING, TROPHOZOITE] = wanted[RING, NOTHING] = 1
    wanted[TROPHOZOITE, NOTHING] = wanted[NOTHING, RING] = 1
    assert np.array_equal(table, wanted)
    assert assign(truth, NO_REGIONS, seen).confusion(0.2)[RING, RING] == 1


def test_a_region_to_ignore_takes_what_lies_in_it_but_not_a_hit() -> None:
    truth, seen = cells((0, RED, 1)), cells((0, RED, 0.9), (100, RING, 0.9))
    region = np.array([[95, 5, 125, 35], [0, 0, 40, 40]])
    found = assign(truth, region, seen)
    assert found.counted.tolist() == [True, False]
    assert found.confusion(0.5).sum() == 1
    counts = Counts.of([found], 0.5)
    assert (counts.infected[0], counts.expected_infected[0]) == (0, 0)


def test_the_best_threshold_is_found() -> None:
    truth = cells((0, RING, 1), (50, RING, 1))
    seen = cells((0, RING, 0.6), (50, RING, 0.55), (100, RING, 0.32), (150, RING, 0.4))
    best = best_decisions([assign(truth, NO_REGIONS, seen)], INFECTED_INDEX.tolist())
    assert best.threshold == pytest.approx(0.45)
    assert best.macro_f1(INFECTED_INDEX.tolist(), ONCE)[0] == 1
    at_all = Decisions.of([assign(truth, NO_REGIONS, seen)], 0.05)
    assert at_all.score("precision", [RING], ONCE)[0] == pytest.approx(1 / 2)


def test_calibration_error_by_hand() -> None:
    # All claims fall into two bins: .2 claimed, 1 of 4 true; .8 claimed, all 2 true.
    claims = [np.array([0.2, 0.2, 0.2, 0.2]), np.array([0.8, 0.8])]
    truths = [np.array([True, False, False, False]), np.array([True, True])]
    table = Reliability.of(claims, truths)
    both = table.error(np.array([[1, 1], [1, 0], [0, 3]]))
    assert both == pytest.approx([(4 * 0.05 + 2 * 0.2) / 6, 0.05, 0.2])
    claimed, observed, count = table.curve()
    assert claimed == pytest.approx([0.2, 0.8])
    assert observed == pytest.approx([0.25, 1.0])
    assert count.tolist() == [4, 2]
    assert np.isnan(Reliability.of([np.zeros(0)], [np.zeros(0, dtype=bool)]).error(ONCE)[0])


def test_claims_that_come_true_as_often_as_claimed_have_no_error() -> None:
    rng = np.random.default_rng(0)
    claims = [rng.uniform(size=1000) for _ in range(40)]
    truths = [rng.uniform(size=1000) < claim for claim in claims]
    whole = np.ones((1, 40), dtype=np.int64)
    assert Reliability.of(claims, truths).error(whole)[0] < 0.012
    assert Reliability.of([claim**2 for claim in claims], truths).error(whole)[0] > 0.15


def test_agreement_is_that_of_bland_and_altman() -> None:
    truth, estimate = np.array([1.0, 2.0, 3.0, 90.0]), np.array([2.0, 2.0, 5.0, 0.0])
    among = np.array([True, True, True, False])
    found = {name: value(np.array([[1, 1, 1, 1]]))[0] for name, value in agreement(truth, estimate, among).items()}
    spread = 1.96 * np.std([1, 0, 2])
    assert found == pytest.approx({"mae": 1, "bias": 1, "limit_low": 1 - spread, "limit_high": 1 + spread})
    assert agreement(truth, estimate, among)["mae"](np.array([[0, 0, 2, 1]]))[0] == pytest.approx(2)


def test_parasitaemia_is_a_share_of_the_red_cells() -> None:
    assert parasitaemia(np.array([1.0, 0.0]), np.array([3.0, 0.0])).tolist() == [25.0, 0.0]
    truth = cells((0, RED, 1), (50, RING, 1), (100, CLASSES.index("leukocyte"), 1))
    nothing = Instances.empty((9, 9))
    counts = Counts.of([assign(truth, NO_REGIONS, truth), assign(nothing, NO_REGIONS, nothing)], 0.5)
    assert counts.percent().tolist() == counts.true_percent().tolist() == [50.0, 0.0]
    assert counts.countable().tolist() == [True, False]
