"""P(difficult): calibrated on cells it never saw, nothing from few examples, fast, never certain."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from al_loop.difficulty import CEILING, ENOUGH, FEATURES, difficulty_features, fit_difficulty
from tests.al_loop.test_acquisition import CERTAIN_RED, CERTAIN_RING, DISPUTED, TORN_RING, pool, random_pool


def reviewed(count: int, seed: int, offset: float = -3.5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features (N, 4) of different scales, what experts said, and the true probability: the last says nothing."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(count, 4)) * [1, 10, 0.1, 3] + [0, 5, 0, -2]
    truth = 1 / (1 + np.exp(-(offset + 1.5 * features[:, 0] + 0.12 * features[:, 1] + 4 * features[:, 2])))
    return features, rng.uniform(size=count) < truth, truth


def test_too_few_difficult_cells_teach_nothing():
    features, _, _ = reviewed(500, 0)
    said = np.arange(500) < ENOUGH - 1
    assert fit_difficulty(features, said) is None
    assert fit_difficulty(features, ~said) is None
    assert fit_difficulty(features, np.arange(500) < ENOUGH) is not None
    assert fit_difficulty(np.zeros((0, 4)), np.zeros(0, bool)) is None


def test_probabilities_mean_what_they_say_on_new_cells():
    features, said, _ = reviewed(4000, 1)
    model = fit_difficulty(features, said)
    assert model is not None
    assert (model.cells, model.difficult) == (4000, int(said.sum()))
    features, said, truth = reviewed(20000, 2)
    predicted = model.predict(features)
    order = np.argsort(predicted)
    errors = [abs(float(predicted[part].mean() - said[part].mean())) for part in np.array_split(order, 10)]
    assert max(errors) < 0.04
    assert np.mean(errors) < 0.015
    assert np.corrcoef(predicted, truth)[0, 1] > 0.98


def test_few_difficult_cells_are_not_overfitted():
    """Fifteen difficult cells and no feature that matters: everything stays near the base rate."""
    rng = np.random.default_rng(3)
    model = fit_difficulty(rng.normal(size=(600, 10)), np.arange(600) < 15)
    assert model is not None
    assert model.predict(rng.normal(size=(2000, 10))).mean() == pytest.approx(15 / 600, rel=0.5)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(1e-3, 1e6))
def test_predictions_are_probabilities_below_certainty_wherever_the_cells_lie(seed, scale):
    features, said, _ = reviewed(300, seed, offset=-2.0)
    model = fit_difficulty(features, said)
    assert model is not None
    rng = np.random.default_rng(seed)
    far = rng.normal(size=(50, 4)) * scale
    far[rng.uniform(size=far.shape) < 0.2] = rng.choice([np.nan, np.inf, -np.inf])
    predicted = model.predict(far)
    assert predicted.dtype == np.float32
    assert np.isfinite(predicted).all()
    assert ((predicted >= 0) & (predicted <= CEILING)).all()
    assert predicted.max() <= min(CEILING, model.predict(features).max() + 1e-6)
    again = fit_difficulty(features, said)
    assert again is not None
    assert (again.predict(far) == predicted).all()


def test_a_missing_feature_counts_as_average():
    features, said, _ = reviewed(2000, 5)
    features[::3, 1] = np.nan
    model = fit_difficulty(features, said)
    assert model is not None
    row = np.array([[1.0, np.nan, 0.1, 0.0]])
    average = np.where(np.isfinite(row), row, np.nanmean(features, axis=0))
    assert model.predict(row)[0] == pytest.approx(model.predict(average)[0], rel=1e-3)


def test_a_million_cells_take_a_moment():
    features, said, _ = reviewed(1000, 6)
    model = fit_difficulty(np.repeat(features, 3, axis=1), said)
    assert model is not None
    many = np.random.default_rng(0).normal(size=(1_000_000, 12)).astype(np.float32)
    spent = []
    for _ in range(5):
        started = time.perf_counter()
        model.predict(many)
        spent.append(time.perf_counter() - started)
    assert min(spent) < 0.2


def test_features_of_cells_tell_sure_ones_from_torn_ones():
    cells = pool(CERTAIN_RED, CERTAIN_RING, TORN_RING, DISPUTED)
    features = dict(zip(FEATURES, difficulty_features(cells).T, strict=True))
    assert features["ring"].tolist() == pytest.approx([0, 0.97, 0.5, 0.7])
    assert features["margin"][2] > 0.9 > features["margin"][1]
    assert features["disagreement"].argmax() == 3
    assert np.isnan(features["localisation"][0])  # only one model saw it
    assert difficulty_features(random_pool(1)).shape == (40, len(FEATURES))
    assert difficulty_features(pool()).shape == (0, len(FEATURES))


def test_what_does_not_fit_is_refused():
    features, said, _ = reviewed(300, 7, offset=-2.0)
    with pytest.raises(ValueError, match="N answers"):
        fit_difficulty(features, said[:-1])
    model = fit_difficulty(features, said)
    assert model is not None
    with pytest.raises(ValueError, match=r"\(N, 4\)"):
        model.predict(features[:, :3])
