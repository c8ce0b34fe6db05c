import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.fuse import FusionConfig, Platt, fuse
from backend.instances import CLASS_INDEX, INFECTED_INDEX, SOURCES, FusedInstances, Instances
from backend.masks import box_to_rle
from tests.backend.views import SIZE, all_cells_views, infected_views, view

BOX, NEAR, FAR = (100, 100, 160, 160), (104, 102, 164, 158), (400, 300, 460, 360)


def _one(fused: FusedInstances) -> tuple[str, str, bool]:
    assert len(fused) == 1
    return fused.cells.class_names()[0], SOURCES[fused.sources[0]], bool(fused.disputed[0])


@given(all_cells_views)
def test_a_view_fused_with_itself_keeps_every_cell_as_both(cells: Instances) -> None:
    fused = fuse(cells, cells)
    assert len(fused) == len(cells)
    assert (fused.sources == SOURCES.index("both")).all()
    np.testing.assert_allclose(fused.pair_iou, 1, rtol=1e-5)
    np.testing.assert_array_equal(fused.score_all_cells, fused.score_infected)
    np.testing.assert_allclose(np.sort(fused.cells.boxes, axis=0), np.sort(cells.boxes, axis=0), rtol=1e-5)


@given(all_cells_views, infected_views)
def test_every_cell_of_all_cells_survives_and_all_numbers_are_sound(a: Instances, b: Instances) -> None:
    fused = fuse(a, b)
    sources = np.array(SOURCES)[fused.sources]
    assert (sources != "infected").sum() == len(a)
    assert len(fused) <= len(a) + len(b)
    assert np.isnan(fused.score_infected[sources == "all_cells"]).all()
    assert np.isnan(fused.score_all_cells[sources == "infected"]).all()
    assert (np.isfinite(fused.pair_iou) == (sources == "both")).all()
    assert not fused.disputed[sources != "both"].any()
    totals = fused.cells.probabilities.sum(axis=1)
    assert (totals <= 1 + 1e-5).all()
    assert (np.diff(totals) <= 1e-5).all()  # surest first
    rows = np.arange(len(fused))
    np.testing.assert_allclose(fused.cells.scores, fused.cells.probabilities[rows, fused.cells.labels])


@given(all_cells_views, infected_views, st.randoms(use_true_random=False))
def test_the_order_of_the_cells_does_not_matter(a: Instances, b: Instances, random: object) -> None:
    shuffled = a.select(np.random.default_rng(0).permutation(len(a))), b.select(np.arange(len(b))[::-1].copy())
    first, second = fuse(a, b), fuse(*shuffled)
    np.testing.assert_allclose(
        np.sort(first.cells.probabilities.sum(axis=1)), np.sort(second.cells.probabilities.sum(axis=1)), rtol=1e-5
    )
    assert sorted(first.cells.class_names()) == sorted(second.cells.class_names())


@given(infected_views)
def test_infected_cells_combine_symmetrically(b: Instances) -> None:
    other = replace(b, boxes=(b.boxes + 2).astype(np.float32))
    equals = FusionConfig(weight_all_cells=0.75, weight_infected=0.75, stage_share=0.5)
    ab, ba = fuse(b, other, equals), fuse(other, b, equals)
    np.testing.assert_allclose(ab.cells.probabilities, ba.cells.probabilities, atol=1e-5)
    np.testing.assert_allclose(ab.cells.boxes, ba.cells.boxes, atol=1e-2)


def test_a_red_cell_only_all_cells_can_see_keeps_its_score() -> None:
    fused = fuse(view((BOX, {"red blood cell": 0.9})), view())
    assert _one(fused) == ("red blood cell", "all_cells", False)
    assert fused.cells.scores[0] == pytest.approx(0.9, abs=0.02)  # and a hundredth to the chance of a parasite


def test_red_against_infected_is_one_infected_and_disputed_cell() -> None:
    fused = fuse(view((BOX, {"red blood cell": 0.95, "ring": 0.02})), view((NEAR, {"ring": 0.8, "trophozoite": 0.05})))
    assert _one(fused) == ("ring", "both", True)
    assert fused.score_all_cells[0] == pytest.approx(0.95)
    assert fused.score_infected[0] == pytest.approx(0.8)
    assert 0.5 < fused.pair_iou[0] < 1


def test_a_weak_word_against_a_red_cell_is_not_a_dispute() -> None:
    fused = fuse(view((BOX, {"red blood cell": 0.95, "ring": 0.02})), view((NEAR, {"ring": 0.2})))
    assert _one(fused) == ("red blood cell", "both", False)


def test_an_infected_label_needs_no_single_stage_above_the_red_cell() -> None:
    spread = {"red blood cell": 0.3, "ring": 0.25, "trophozoite": 0.25, "schizont": 0.2}
    unsure = view((NEAR, {"ring": 0.35, "trophozoite": 0.35}))
    assert _one(fuse(view((BOX, spread)), unsure))[0] in ("ring", "trophozoite")


def test_the_silence_of_infected_counts_against_a_parasite() -> None:
    claim = view((BOX, {"ring": 0.6, "red blood cell": 0.3}))
    silent = fuse(claim, view()).cells.probabilities[0, INFECTED_INDEX].sum()
    doubtful = fuse(claim, view((NEAR, {"ring": 0.3}))).cells.probabilities[0, INFECTED_INDEX].sum()
    assert silent < doubtful < 0.6
    healthy = fuse(view((BOX, {"red blood cell": 0.9})), view()).cells
    assert healthy.scores[0] == pytest.approx(0.9, abs=0.02)


def test_two_different_stages_are_disputed() -> None:
    fused = fuse(view((BOX, {"ring": 0.9})), view((NEAR, {"trophozoite": 0.95})))
    assert _one(fused) == ("trophozoite", "both", True)
    agreed = fuse(view((BOX, {"ring": 0.9})), view((NEAR, {"ring": 0.9})))
    assert _one(agreed) == ("ring", "both", False)


def test_agreement_keeps_and_disagreement_lowers_the_odds() -> None:
    def infected(a: float, b: float) -> float:
        first = view((BOX, {"ring": 0.9 * a, "red blood cell": 0.9 * (1 - a)}))
        return float(fuse(first, view((NEAR, {"ring": b}))).cells.probabilities[0, INFECTED_INDEX].sum())

    assert infected(0.9, 0.3) < infected(0.9, 0.6) < infected(0.9, 0.9)
    assert infected(0.6, 0.9) < infected(0.8, 0.9)


def test_a_box_only_infected_saw_is_kept_above_the_threshold() -> None:
    red = view((BOX, {"red blood cell": 0.9}))
    config = FusionConfig(keep_threshold=0.3)
    assert len(fuse(red, view((FAR, {"ring": 0.29})), config)) == 1
    fused = fuse(red, view((FAR, {"ring": 0.31})), config)
    assert [SOURCES[source] for source in fused.sources] == ["all_cells", "infected"]
    assert fused.cells.class_names()[1] == "ring"
    assert fused.cells.probabilities[1, CLASS_INDEX["red blood cell"]] == 0


def test_boxes_are_weighted_by_how_sure_each_model_is() -> None:
    fused = fuse(view(((0, 0, 100, 100), {"ring": 0.9})), view(((0, 0, 110, 100), {"ring": 0.3})))
    assert fused.cells.boxes[0, 2] == pytest.approx(102.5, abs=0.01)


def test_the_mask_of_the_surer_model_is_taken() -> None:
    a, b = view((BOX, {"ring": 0.5})), view((NEAR, {"ring": 0.9}), (FAR, {"ring": 0.9}))
    masks_a = [box_to_rle(np.array(BOX), SIZE)]
    masks_b = [box_to_rle(np.array(box), SIZE) for box in (NEAR, FAR)]
    fused = fuse(replace(a, masks=masks_a), replace(b, masks=masks_b))
    assert [mask in masks_b for mask in fused.cells.masks] == [True, True]
    assert fuse(replace(a, masks=masks_a), view()).cells.masks == masks_a
    assert fuse(replace(a, masks=masks_a), b).cells.masks == ()


def test_calibration_is_applied_before_combining() -> None:
    config = FusionConfig(infected=Platt(1.0, -4.0))
    fused = fuse(view((BOX, {"red blood cell": 0.95})), view((NEAR, {"ring": 0.8})), config)
    assert _one(fused) == ("red blood cell", "both", False)
    assert fused.score_infected[0] == pytest.approx(0.8)  # the raw score is kept


def test_nothing_seen_is_nothing() -> None:
    assert len(fuse(Instances.empty(SIZE), Instances.empty(SIZE))) == 0
    with pytest.raises(ValueError, match="one image"):
        fuse(Instances.empty(SIZE), Instances.empty((10, 10)))


def test_configurations_round_trip_as_json() -> None:
    config = FusionConfig(healthy=Platt(1.5, -0.2), bias=-0.3, keep_threshold=0.11)
    assert FusionConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    assert FusionConfig.from_json({}) == FusionConfig()
    with pytest.raises(ValueError, match="a > 0"):
        Platt(a=-1.0)
    with pytest.raises(ValueError, match="weights"):
        FusionConfig(weight_all_cells=0, weight_infected=0)
