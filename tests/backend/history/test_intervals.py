"""Intervals of shares: textbook numbers, one effective sample size by hand, and what more fields are worth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from backend.history.intervals import Z, clustered, independent, wilson
from db.views_counts import Z as Z_OF_THE_VIEW


def test_wilson_as_in_the_literature() -> None:
    """The four examples of Newcombe, Statistics in Medicine 17 (1998) 857, method 3."""
    shares = independent(np.array([81, 15, 0, 1]), np.array([263, 148, 20, 29]))
    assert shares.low == pytest.approx([0.2553, 0.0624, 0.0, 0.0061], abs=5e-5)
    assert shares.high == pytest.approx([0.3662, 0.1605, 0.1611, 0.1718], abs=5e-5)
    assert pytest.approx(Z_OF_THE_VIEW, abs=1e-6) == Z


@pytest.mark.parametrize("cells", [100, 2000])
def test_without_any_hit_the_limit_is_that_of_clopper_and_pearson(cells: int) -> None:
    shares = independent(np.array([0]), np.array([cells]))
    assert shares.low[0] == 0
    assert shares.high[0] == pytest.approx(stats.beta.ppf(0.975, 1, cells), rel=0.05)


def test_an_effective_sample_size_by_hand() -> None:
    """0 and 10 of 100 each: effect 100 / 9.5, one degree of freedom; expected 1.99, worth four."""
    shares = clustered(np.array([0, 10]), np.array([100, 100]), np.array([0, 0]), 1)
    effect = (100 / 9.5 + 4 * 1.99) / 5
    low, high = wilson(np.array([0.05]), np.array([200 / effect * (1.959964 / 2.570582) ** 2]))
    assert (shares.low[0], shares.high[0]) == pytest.approx((low[0], high[0]), rel=1e-5)
    assert (shares.value[0], shares.clusters[0], shares.assumed[0]) == (0.05, 2, False)


def test_no_cluster_makes_an_interval_narrower_than_independent_cells() -> None:
    rng = np.random.default_rng(0)
    trials = rng.integers(0, 100, (300, 4))
    hits = rng.binomial(trials, rng.uniform(0, 1, (300, 4)) ** 3)
    alone = independent(hits.sum(axis=1), trials.sum(axis=1))
    together = clustered(hits.ravel(), trials.ravel(), np.repeat(np.arange(300), 4), 300)
    assert (together.low <= alone.low).all()
    assert (together.high >= alone.high).all()
    assert together.value == pytest.approx(alone.value)


def test_many_fields_that_do_not_differ_undo_the_assumption() -> None:
    fields = 2000
    hits = np.random.default_rng(1).binomial(100, 0.05, fields)
    alone = independent(np.array([hits.sum()]), np.array([100 * fields]))
    together = clustered(hits, np.full(fields, 100), np.zeros(fields, dtype=np.int64), 1)
    assert together.high[0] - together.low[0] == pytest.approx(alone.high[0] - alone.low[0], rel=0.05)


@pytest.mark.parametrize(("hits", "trials"), [([5], [100]), ([0, 0, 0], [100, 90, 80]), ([1, 0], [50, 50]), ([9], [9])])
def test_it_says_when_the_correlation_is_assumed(hits: list[int], trials: list[int]) -> None:
    shares = clustered(np.array(hits), np.array(trials), np.zeros(len(hits), dtype=np.int64), 1)
    assert shares.assumed.all()
    assert 0 <= shares.low[0] < shares.high[0] <= 1


def test_nothing_counted_is_no_number() -> None:
    shares = clustered(np.array([0, 3]), np.array([0, 60]), np.array([0, 2]), 3)
    assert np.isnan([shares.value[:2], shares.low[:2], shares.high[:2]]).all()
    assert shares.clusters.tolist() == [0, 0, 1]
