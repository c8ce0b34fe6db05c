"""Seconds learned from lead times: recovered from noisy ones, hardly moved by few, never absurd."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from al_loop.cost import PRIOR, SecondsModel, learn_seconds


def lead_times(count: int, base: float, per_cell: float, seed: int = 0) -> list[tuple[int, float]]:
    """Reviews of fields with 5 to 150 cells; one in ten was interrupted for some minutes."""
    rng = np.random.default_rng(seed)
    cells = rng.integers(5, 150, count)
    seconds = (base + per_cell * cells) * rng.lognormal(0, 0.4, count)
    seconds += np.where(rng.uniform(size=count) < 0.1, rng.uniform(120, 1200, count), 0)
    return list(zip(cells.tolist(), seconds.tolist(), strict=True))


def test_without_lead_times_the_prior_holds():
    assert learn_seconds([], []) == PRIOR
    assert learn_seconds([(50, 0.0), (50, -3.0), (50, 1801.0)], [float("nan")]).to_json() == {
        **PRIOR.to_json(),
        "left_out": 4,
    }


@pytest.mark.parametrize(("base", "per_cell", "cell"), [(25.0, 1.5, 2.0), (6.0, 0.2, 9.0)])
def test_many_lead_times_are_believed_in_spite_of_interruptions(base, per_cell, cell):
    crops = cell * np.random.default_rng(1).lognormal(0, 0.5, 400)
    crops[::10] = 600.0
    found = learn_seconds(lead_times(400, base, per_cell), crops.tolist())
    assert found.of_fields([60])[0] == pytest.approx(base + per_cell * 60, rel=0.15)
    assert found.field_base == pytest.approx(base, rel=0.35)
    assert found.field_per_cell == pytest.approx(per_cell, rel=0.2)
    assert found.cell == pytest.approx(cell, rel=0.15)
    assert (found.fields, found.cells, found.left_out) == (400, 400, 0)


def test_few_lead_times_move_it_less_than_many():
    moved = [learn_seconds([(60, 200.0)] * count, [20.0] * count) for count in (1, 3, 10, 100)]
    fields = [model.of_fields([60])[0] for model in moved]
    assert PRIOR.of_fields([60])[0] < fields[0] < fields[1] < fields[2] < fields[3] == pytest.approx(200, rel=0.05)
    crops = [model.cell for model in moved]
    assert PRIOR.cell < crops[0] < crops[1] < crops[2] < crops[3] == pytest.approx(20, rel=0.05)
    assert crops[0] < 2 * PRIOR.cell


@settings(max_examples=60, deadline=None)
@given(
    fields=st.lists(st.tuples(st.integers(0, 500), st.floats(allow_nan=True, allow_infinity=True)), max_size=15),
    looks=st.lists(st.tuples(st.integers(0, 500), st.floats(1e-3, 1800)), max_size=15),
    cells=st.lists(st.floats(1e-3, 4000), max_size=15),
)
def test_whatever_is_reported_seconds_stay_positive_and_grow_with_cells(fields, looks, cells):
    model = learn_seconds([*fields, *looks], cells)
    seconds = model.of_fields(np.arange(300))
    assert np.isfinite(seconds).all()
    assert seconds[0] > 0
    assert (np.diff(seconds) > 0).all()
    assert model.cell > 0
    assert model == learn_seconds([*fields, *looks], cells)
    assert SecondsModel.from_json(json.loads(json.dumps(model.to_json()))) == model


def test_impossible_numbers_are_refused():
    with pytest.raises(ValueError, match="at least 0"):
        learn_seconds([(-1, 20.0)], [])
    with pytest.raises(ValueError, match="above 0"):
        SecondsModel(field_per_cell=0.0)
