"""Infected cells nobody has seen: intervals that contain the truth, tighter with strata, wider for whole fields."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta

from al_loop.unseen import mid_p_limits, unseen_infected

DRAWS = 250


def smear(rng: np.random.Generator, cells: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """P(infected) as a fair model gives it, and the 3 % that are; it is blind to one in twenty of these."""
    truth = rng.uniform(size=cells) < 0.03
    sees = truth & (rng.uniform(size=cells) > 0.05)
    return np.where(sees, rng.beta(4, 1.2, cells), rng.beta(0.25, 9, cells)), truth


def test_intervals_contain_the_truth_with_strata_and_without():
    inside, widths, errors = [], [], []
    for seed in range(DRAWS):
        rng = np.random.default_rng(seed)
        probability, truth = smear(rng)
        drawn = rng.permutation(len(truth)) < 400
        plain = unseen_infected(truth[drawn], int((~drawn).sum()))
        tight = unseen_infected(truth[drawn], probability[~drawn], probability[drawn])
        assert plain is not None
        assert tight is not None
        left = truth[~drawn].sum()
        inside.append([plain.low <= left <= plain.high, tight.low <= left <= tight.high])
        errors.append(tight.estimate - left)
        widths.append([plain.high - plain.low, tight.high - tight.low])
    covered = np.mean(inside, axis=0)
    assert (covered >= 0.93).all(), covered
    assert covered[0] <= 0.98
    assert abs(np.mean(errors)) < 4 * np.std(errors) / DRAWS**0.5  # no bias
    plain_width, tight_width = np.mean(widths, axis=0)
    assert tight_width < 0.75 * plain_width


@pytest.mark.parametrize("rate", [0.002, 0.02, 0.3])
def test_mid_p_limits_hold_for_rare_and_common_cells(rate):
    rng = np.random.default_rng(7)
    waiting, reviewed = 2000, 150
    inside = 0
    for _ in range(DRAWS):
        truth = rng.uniform(size=waiting + reviewed) < rate
        low, high = mid_p_limits(int(truth[:reviewed].sum()), reviewed, waiting)
        inside += low <= truth[reviewed:].sum() <= high
    assert inside / DRAWS >= 0.92


def test_whole_fields_count_for_less_than_as_many_cells():
    """Fields differ: some patients' are full of parasites. Without the fields the interval is too narrow."""
    inside, naive, effects = 0, 0, []
    for seed in range(DRAWS):
        rng = np.random.default_rng(seed)
        rates = rng.beta(0.8, 12, 400)
        truth = rng.uniform(size=(400, 50)) < rates[:, None]
        drawn, left = truth[:40].ravel(), truth[40:].sum()
        found = unseen_infected(drawn, 360 * 50, fields=np.repeat(np.arange(40), 50))
        alone = unseen_infected(drawn, 360 * 50)
        assert found is not None
        assert alone is not None
        inside += found.low <= left <= found.high
        naive += alone.low <= left <= alone.high
        effects.append(found.design_effect)
    assert np.median(effects) > 2
    assert inside / DRAWS >= 0.9
    assert naive / DRAWS < 0.85


def test_it_lies_within_clopper_and_pearson_where_the_pool_is_large():
    low, high = mid_p_limits(7, 100, 1_000_000)
    exact = beta.ppf(0.025, 7, 94), beta.ppf(0.975, 8, 93)
    assert exact[0] < low / 1e6 < 1.2 * exact[0]
    assert 0.95 * exact[1] < high / 1e6 < exact[1]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    reviewed=st.integers(1, 120),
    waiting=st.integers(0, 500),
    rate=st.floats(0, 1),
    by_field=st.booleans(),
)
def test_numbers_are_possible_and_add_up_whatever_was_drawn(seed, reviewed, waiting, rate, by_field):
    rng = np.random.default_rng(seed)
    said = rng.uniform(size=reviewed) < rate
    fields = rng.integers(0, 6, reviewed) if by_field else None
    found = unseen_infected(said, rng.uniform(size=waiting) ** 3, rng.uniform(size=reviewed) ** 3, fields)
    assert found is not None
    assert 0 <= found.low <= found.estimate + 1e-9
    assert found.estimate <= found.high + 1e-9
    assert found.high <= found.waiting == waiting
    assert sum(stratum.reviewed for stratum in found.strata) == reviewed
    assert sum(stratum.infected for stratum in found.strata) == said.sum()
    assert sum(stratum.waiting for stratum in found.strata) == waiting
    assert min(stratum.reviewed for stratum in found.strata) > 0
    assert json.loads(json.dumps(found.to_json()))["reviewed"] == reviewed


def test_more_random_cells_tell_more():
    few = unseen_infected(np.arange(50) < 5, 1000)
    many = unseen_infected(np.arange(500) < 50, 1000)
    assert few is not None
    assert many is not None
    assert few.estimate == pytest.approx(100) == pytest.approx(many.estimate)
    assert few.low < many.low < 100 < many.high < few.high


def test_extremes():
    assert unseen_infected(np.zeros(0, bool), 100) is None
    nobody = unseen_infected(np.zeros(60, bool), 0)
    assert nobody is not None
    assert (nobody.estimate, nobody.low, nobody.high) == (0, 0, 0)
    none = unseen_infected(np.zeros(60, bool), 1000)
    assert none is not None
    assert (none.estimate, none.low) == (0, 0)
    assert none.high == pytest.approx(3 / 60 * 1000, rel=0.05)  # the "rule of three"
    one_field = unseen_infected(np.arange(60) < 30, 1000, fields=np.zeros(60, np.int64))
    assert one_field is not None
    assert one_field.high - one_field.low > 700  # one field says next to nothing of others


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="probability"):
        unseen_infected(np.zeros(3, bool), np.zeros(5), np.zeros(2))
    with pytest.raises(ValueError, match="fields"):
        unseen_infected(np.zeros(3, bool), 5, fields=np.zeros(2, np.int64))
