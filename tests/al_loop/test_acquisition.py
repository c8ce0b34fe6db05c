import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from al_loop.acquisition import (
    DOUBTS,
    AcquisitionConfig,
    PoolCells,
    rank_images,
    rarity_weights,
    score_cells,
)
from al_loop.reasons import rank_cells
from backend.instances import CLASS_INDEX, CLASSES

WEIGHTS = rarity_weights({"red blood cell": 4000, "trophozoite": 60, "ring": 15}, AcquisitionConfig())


def pool(*rows: dict) -> PoolCells:
    """Cells from rows of {image, <class name>: probability, all_cells, infected, iou, disputed, difficult}."""
    probabilities = np.zeros((len(rows), len(CLASSES)))
    for index, row in enumerate(rows):
        for name, column in CLASS_INDEX.items():
            probabilities[index, column] = row.get(name, 0.0)
    return PoolCells(
        image=np.array([row.get("image", 1) for row in rows], dtype=np.int64),
        probabilities=probabilities,
        score_all_cells=np.array([row.get("all_cells", np.nan) for row in rows], dtype=float),
        score_infected=np.array([row.get("infected", np.nan) for row in rows], dtype=float),
        pair_iou=np.array([row.get("iou", np.nan) for row in rows], dtype=float),
        disputed=np.array([row.get("disputed", False) for row in rows], dtype=bool),
        difficult=np.array([row.get("difficult", False) for row in rows], dtype=bool),
    )


CERTAIN_RED = {"red blood cell": 0.995, "all_cells": 0.995}
CERTAIN_RING = {"ring": 0.97, "all_cells": 0.97, "infected": 0.97, "iou": 0.95}
TORN_RING = {"ring": 0.5, "trophozoite": 0.45, "all_cells": 0.5, "infected": 0.6, "iou": 0.9}
DISPUTED = {"ring": 0.7, "red blood cell": 0.2, "all_cells": 0.9, "infected": 0.8, "iou": 0.9, "disputed": True}


def random_pool(seed: int, n: int = 40) -> PoolCells:
    rng = np.random.default_rng(seed)
    scores = rng.uniform(0, 1, (2, n))
    scores[rng.uniform(size=(2, n)) < 0.3] = np.nan
    return PoolCells(
        image=rng.integers(0, 6, n),
        probabilities=rng.dirichlet(np.full(len(CLASSES) + 1, 0.3), n)[:, :-1],
        score_all_cells=scores[0],
        score_infected=scores[1],
        pair_iou=np.where(np.isnan(scores).any(axis=0), np.nan, rng.uniform(0.5, 1, n)),
        disputed=rng.uniform(size=n) < 0.2,
        difficult=rng.uniform(size=n) < 0.1,
    )


def test_certain_cells_score_nothing_and_each_doubt_names_its_reason():
    cells = pool(
        CERTAIN_RED,
        CERTAIN_RING,
        TORN_RING,
        DISPUTED,
        {**CERTAIN_RING, "iou": 0.5},
        {**CERTAIN_RED, "difficult": True},
        {"red blood cell": 0.4, "all_cells": 0.4},
    )
    scores = score_cells(cells, WEIGHTS)
    assert scores.score[0] == 0
    assert scores.doubt[1] == 0
    ranked = rank_cells(cells, scores)
    reasons = {cell.index: cell.reason for cell in ranked}
    assert sorted(reasons) == [1, 2, 3, 4, 5, 6]
    assert reasons[1] == "A ring (0.97) that nobody has confirmed"
    assert scores.score[1] < scores.score[[2, 3, 4]].min(), "behind every parasite in doubt"
    assert reasons[2] == "ring 0.50 or trophozoite 0.45?"
    assert reasons[3] == "The two models disagree: all_cells 0.90, infected 0.80; together ring"
    assert reasons[4] == "The two models outline it differently (overlap 0.50)"
    assert reasons[5] == "An expert could not decide: please read again"
    assert reasons[6] == "Perhaps no cell: red blood cell only 0.40"
    known = dataclasses.replace(
        pool(CERTAIN_RED, CERTAIN_RED, CERTAIN_RED),
        suspicion=np.array([0.9, 0, 0]),
        novelty=np.array([0, 0.8, 0]),
        difficult=np.array([0, 0, 0.7]),
    )
    scores = score_cells(known, WEIGHTS)
    reasons = {cell.index: cell.reason for cell in rank_cells(known, scores)}
    assert reasons[0] == "Its label may be wrong: the models say red blood cell 0.99"
    assert reasons[1] == "Unlike any cell reviewed so far; the models say red blood cell 0.99"
    assert reasons[2] == "Like cells that experts found difficult (0.70)"


def test_a_cell_only_one_model_sees_is_a_disagreement():
    cells = pool({"ring": 0.9, "infected": 0.9}, {"ring": 0.9, "infected": 0.9, "all_cells": 0.9, "iou": 1.0})
    scores = score_cells(cells, WEIGHTS)
    assert scores.doubts[0, DOUBTS.index("disagreement")] > 0.5
    assert scores.doubts[1, DOUBTS.index("disagreement")] == pytest.approx(0)


def test_full_disagreement_is_one_bit():
    cells = pool({**DISPUTED, "all_cells": 1.0, "infected": 1.0})
    assert score_cells(cells, WEIGHTS).doubts[0, DOUBTS.index("disagreement")] == pytest.approx(1)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), closer=st.floats(0, 1))
def test_more_doubt_never_ranks_lower(seed, closer):
    cells = random_pool(seed)
    before = score_cells(cells, WEIGHTS)
    lower_iou = score_cells(dataclasses.replace(cells, pair_iou=cells.pair_iou * closer), WEIGHTS)
    assert (lower_iou.score >= before.score - 1e-12).all()
    called_difficult = score_cells(dataclasses.replace(cells, difficult=np.ones(len(cells), bool)), WEIGHTS)
    assert (called_difficult.score >= before.score - 1e-12).all()
    for name in ("suspicion", "novelty"):
        more = score_cells(dataclasses.replace(cells, **{name: np.full(len(cells), closer)}), WEIGHTS)
        assert (more.score >= before.score - 1e-12).all()
    # Class weights equal, so only the margin changes when the two best classes move together.
    flat = np.ones(len(CLASSES))
    undisputed = dataclasses.replace(
        cells,
        score_all_cells=np.full(len(cells), 0.9),
        score_infected=np.full(len(cells), 0.9),
        probabilities=np.tile([0.0, 0.9, 0.0, 0.0, 0.0, 0.0], (len(cells), 1)),
    )
    moved = undisputed.probabilities.copy()
    moved[:, 1] -= 0.44 * closer
    moved[:, 2] += 0.44 * closer
    torn = dataclasses.replace(undisputed, probabilities=moved)
    assert (score_cells(torn, flat).score >= score_cells(undisputed, flat).score - 1e-12).all()


def test_a_hundred_certain_red_cells_add_nothing_but_cost():
    alone, crowded = pool(TORN_RING), pool(TORN_RING, *[CERTAIN_RED] * 100)
    config = AcquisitionConfig()
    [quiet] = rank_images([1], alone, score_cells(alone, WEIGHTS))
    [busy] = rank_images([1], crowded, score_cells(crowded, WEIGHTS))
    assert busy.terms["value"] == quiet.terms["value"]
    assert busy.terms["seconds"] == pytest.approx(quiet.terms["seconds"] + 100 * config.seconds_per_cell)
    assert 0 < busy.score < quiet.score


def test_only_the_best_five_cells_count():
    five, six = pool(*[TORN_RING] * 5), pool(*[TORN_RING] * 6)
    [a] = rank_images([1], five, score_cells(five, WEIGHTS))
    [b] = rank_images([1], six, score_cells(six, WEIGHTS))
    assert b.terms["value"] == pytest.approx(a.terms["value"])
    assert len(b.best) == 5


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_terms_reproduce_scores_whatever_the_order_of_cells(seed):
    cells = random_pool(seed)
    config = AcquisitionConfig()
    scores = score_cells(cells, WEIGHTS, config)
    assert np.isfinite(scores.score).all()
    for cell in rank_cells(cells, scores):
        doubt = max(max(cell.terms[name] for name in DOUBTS) - config.doubt_floor, 0)
        assert cell.terms["doubt"] == pytest.approx(doubt / (1 - config.doubt_floor))
        assert cell.score == pytest.approx(cell.terms["doubt"] * cell.terms["weight"] + cell.terms["confirm"])
        assert 0 < len(cell.reason) <= 255
    ranked = rank_images(range(7), cells, scores, config)
    for image in ranked:
        assert image.score == pytest.approx(image.terms["value"] / image.terms["seconds"])
        assert image.terms["value"] == pytest.approx(scores.score[list(image.best)].sum())
    order = np.random.default_rng(seed).permutation(len(cells))
    names = [field.name for field in dataclasses.fields(PoolCells)]
    shuffled = PoolCells(**{name: getattr(cells, name)[order] for name in names})
    again = rank_images(range(7), shuffled, score_cells(shuffled, WEIGHTS, config), config)
    assert [(image.image, image.score) for image in again] == [(image.image, image.score) for image in ranked]


def test_an_image_without_cells_ranks_last_with_score_zero():
    cells = pool(TORN_RING)
    ranked = rank_images([2, 1], cells, score_cells(cells, WEIGHTS))
    assert [image.image for image in ranked] == [1, 2]
    assert ranked[1].score == 0


def test_rare_and_badly_known_classes_weigh_more():
    config = AcquisitionConfig()
    weights = rarity_weights({"red blood cell": 4000, "trophozoite": 60, "ring": 15}, config)
    assert weights[CLASS_INDEX["red blood cell"]] == config.rarity_range[0]
    assert weights[CLASS_INDEX["schizont"]] > weights[CLASS_INDEX["ring"]] > weights[CLASS_INDEX["trophozoite"]]
    known = rarity_weights({"ring": 15, "trophozoite": 15}, config, {"ring": 0.9, "trophozoite": 0.3})
    assert known[CLASS_INDEX["trophozoite"]] > known[CLASS_INDEX["ring"]]
    assert np.isfinite(rarity_weights({}, config)).all()


def test_no_cells_at_all():
    nothing = pool()
    scores = score_cells(nothing, WEIGHTS)
    assert rank_cells(nothing, scores) == []
    assert [image.score for image in rank_images([1], nothing, scores)] == [0]


def test_infected_or_not_is_the_first_question_and_both_sides_of_it_weigh_alike():
    flat = np.ones(len(CLASSES))
    torn = {"ring": 0.5, "red blood cell": 0.5, "all_cells": 0.5, "infected": 0.5}
    stage = {"ring": 0.5, "trophozoite": 0.5, "all_cells": 0.5, "infected": 0.5}
    healthy = {"red blood cell": 0.5, "leukocyte": 0.5, "all_cells": 0.5}
    scores = score_cells(pool(torn, stage, healthy), flat)
    assert scores.score[0] > scores.score[1] > scores.score[2]
    assert scores.doubt[1] == pytest.approx(scores.doubt[2]), "which stage doubts as which healthy cell"
    rare = np.where(np.arange(len(CLASSES)) == CLASS_INDEX["ring"], 4.0, 0.5)
    more = {**torn, "ring": 0.6, "red blood cell": 0.4}
    less = {**torn, "ring": 0.4, "red blood cell": 0.6, "infected": 0.4}
    above, below = score_cells(pool(more, less), rare).score
    assert below == pytest.approx(above, rel=0.15)
    [first] = rank_cells(pool(torn), score_cells(pool(torn), rare))
    assert first.reason == "Infected or not? 0.50 that it is, most like ring"
