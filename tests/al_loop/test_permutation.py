"""Permutation tests keep their word: p is uniform under chance, and small when there is something."""

from __future__ import annotations

import numpy as np
import pytest

from al_loop.permutation import mean_excess, sign_flip, two_samples


def test_a_sign_flip_of_few_differences_is_that_of_all_arrangements() -> None:
    differences = np.array([3.0, 1.0, 2.0, 4.0])
    assert sign_flip(differences, draws=20_000) == pytest.approx(1 / 16, abs=0.01)
    assert sign_flip(-differences) == pytest.approx(1.0, abs=1e-3)
    assert sign_flip(np.zeros(5)) == 1.0


def test_chance_alone_is_called_significant_as_often_as_said() -> None:
    rng = np.random.default_rng(2)
    paired = [sign_flip(rng.poisson(4, 20) - rng.poisson(4, 20).astype(float), draws=300) for _ in range(300)]
    apart = []
    for _ in range(300):
        values = rng.poisson(4, 30).astype(float)
        apart.append(two_samples(20, 10, mean_excess(values), draws=300))
    for found in (paired, apart):
        assert np.mean(np.array(found) <= 0.05) < 0.09  # 0.05 and three standard errors


def test_a_real_excess_is_seen_and_only_in_its_direction() -> None:
    values = np.array([2.0] * 15 + [5.0] * 15) + np.random.default_rng(1).normal(0, 1, 30)
    assert two_samples(15, 15, mean_excess(values)) < 0.001
    assert two_samples(15, 15, mean_excess(-values)) > 0.99
