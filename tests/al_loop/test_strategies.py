"""One contract for all strategies, and what sets each apart."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from al_loop.acquisition import PoolCells
from al_loop.strategies import STRATEGIES, Pool, Strategy, strategy_named
from backend.instances import CLASS_INDEX, CLASSES, INFECTED
from tests.al_loop.pools import WEIGHTS, cells, certain_reds, joined, pool, reordered, unit

BATCH = 8
DOUBTING = ("ours", "entropy", "margin", "least-confidence")


@pytest.fixture(params=STRATEGIES)
def strategy(request: pytest.FixtureRequest) -> Strategy:
    return STRATEGIES[request.param]


def use(strategy: Strategy, known: Pool, seed: int = 0) -> np.ndarray:
    return strategy(known, BATCH, np.random.default_rng(seed))


@pytest.mark.parametrize("seed", range(5))
def test_utilities_are_finite_numbers_one_per_cell(strategy: Strategy, seed: int) -> None:
    known = pool(seed)
    utilities = use(strategy, known)
    assert utilities.shape == (len(known),)
    assert utilities.dtype == np.float64
    assert np.isfinite(utilities).all()


@pytest.mark.parametrize("seed", range(3))
def test_the_same_seed_gives_the_same_utilities_and_leaves_the_pool_alone(strategy: Strategy, seed: int) -> None:
    known, untouched = pool(seed), pool(seed)
    assert np.array_equal(use(strategy, known, 3), use(strategy, known, 3))
    for column in dataclasses.fields(PoolCells):
        assert np.array_equal(getattr(known.cells, column.name), getattr(untouched.cells, column.name), equal_nan=True)
    assert np.array_equal(known.embeddings, untouched.embeddings)


@pytest.mark.parametrize("name", sorted(STRATEGIES.keys() - {"random"}))  # random says nothing of a cell
@pytest.mark.parametrize("seed", range(3))
def test_what_is_said_of_a_cell_does_not_depend_on_where_it_stands(name: str, seed: int) -> None:
    strategy, known = STRATEGIES[name], pool(seed)
    order = np.random.default_rng(seed + 50).permutation(len(known))
    assert use(strategy, reordered(known, order)) == pytest.approx(use(strategy, known)[order], abs=1e-6)


def test_an_empty_pool_and_a_pool_without_embeddings_are_pools(strategy: Strategy) -> None:
    nothing = np.zeros((0, 4), dtype=np.float32)
    assert use(strategy, Pool(certain_reds(0), WEIGHTS, nothing, nothing)).shape == (0,)
    blind = Pool(cells(1), WEIGHTS, np.zeros((60, 0), dtype=np.float32), np.zeros((7, 0), dtype=np.float32))
    assert np.isfinite(use(strategy, blind)).all()


def test_missing_numbers_are_no_doubt_and_no_nan(strategy: Strategy) -> None:
    known = cells(2)
    holes = dataclasses.replace(known, probabilities=np.where(known.probabilities < 0.1, np.nan, known.probabilities))
    assert np.isfinite(use(strategy, Pool(holes, WEIGHTS, unit(2, 60), unit(3, 2)))).all()


@pytest.mark.parametrize("name", DOUBTING)
def test_a_torn_cell_comes_before_a_certain_one(name: str) -> None:
    torn = certain_reds(1)
    torn.probabilities[0, :3] = (0.34, 0.33, 0.33)
    known = Pool(joined(certain_reds(3), torn), WEIGHTS, unit(0, 4), unit(1, 1))
    assert use(STRATEGIES[name], known).argmax() == 3


@pytest.mark.parametrize("name", DOUBTING)
@pytest.mark.parametrize("label", CLASSES)
def test_more_doubt_between_the_same_two_classes_never_ranks_lower(name: str, label: str) -> None:
    other = CLASS_INDEX["ring" if label != "ring" else "trophozoite"]
    steps = certain_reds(11)
    steps.probabilities[:] = 0
    shift = np.linspace(0, 0.5, 11)
    steps.probabilities[:, CLASS_INDEX[label]] = 1 - shift
    steps.probabilities[:, other] = shift
    if label in INFECTED:
        steps.score_infected[:], steps.pair_iou[:] = 0.995, 1.0  # both models saw it, alike
    # Both classes weigh the same: all else is equal.
    known = Pool(steps, np.ones(len(CLASSES)), unit(0, 11), unit(1, 1))
    utilities = use(STRATEGIES[name], known)
    assert (np.diff(utilities) >= -1e-9).all()
    assert utilities[-1] > utilities[0]


def test_core_set_takes_what_is_far_from_everything_chosen() -> None:
    points = np.eye(4, dtype=np.float32)[[0, 0, 1, 1, 2]]
    known = Pool(certain_reds(5), WEIGHTS, points, points[:1])
    utilities = STRATEGIES["core-set"](known, 2, np.random.default_rng(0))
    first, second = np.argsort(-utilities, kind="stable")[:2]
    assert {int(first), int(second)} in ({2, 4}, {3, 4})  # one of each unseen direction
    assert utilities[0] == pytest.approx(0, abs=1e-3)  # reviewed already


def test_typiclust_begins_with_the_largest_cluster_nobody_has_seen() -> None:
    rng = np.random.default_rng(0)
    centres = np.eye(8)[[0] * 30 + [1] * 20 + [2] * 5]
    points = centres + 0.02 * rng.normal(size=centres.shape)
    points = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
    known = Pool(certain_reds(55), WEIGHTS, points, points[:1])
    utilities = STRATEGIES["typiclust"](known, 2, np.random.default_rng(0))
    best = np.argsort(-utilities)[:2]
    assert utilities[best].min() > 1
    assert 30 <= best[0] < 50


def test_random_draws_every_cell_alike() -> None:
    known = pool(0, 10)
    firsts = [int(use(STRATEGIES["random"], known, seed).argmax()) for seed in range(400)]
    assert np.bincount(firsts, minlength=10).min() > 15


def test_rare_class_wants_parasites_and_the_rarer_ones_more() -> None:
    three = certain_reds(3)
    three.probabilities[1] = three.probabilities[2] = 0
    three.probabilities[1, CLASS_INDEX["trophozoite"]] = 0.9
    three.probabilities[2, CLASS_INDEX["ring"]] = 0.9
    utilities = use(STRATEGIES["rare-class"], Pool(three, WEIGHTS, unit(0, 3), unit(1, 1)))
    assert list(np.argsort(-utilities)) == [2, 1, 0]


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"entropy.*random.*'best'"):
        strategy_named("best")
