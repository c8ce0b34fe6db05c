"""The judgement on several views: numbers written down by hand, COCO's own, and what must hold for any detections."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from al_loop.judge import judge
from al_loop.judge_ap import IOUS, coco_ap, resampled_ap
from al_loop.judge_numbers import Judgement, Number
from al_loop.metrics import CHANNELS, average_precision, match_images, resampled_weights
from backend.errors import NotEnoughData
from backend.instances import CLASSES, INFECTED, Instances
from tests.al_loop.test_metrics import NOTHING, RED, RING, TROPHOZOITE, cells, random_images

FIELD = [cells((0, RED, 1), (50, RED, 1), (100, RING, 1)), cells((0, RED, 1), (50, TROPHOZOITE, 1))]


def judged(truths: list, views: dict, ignore: list | None = None, **options: object) -> Judgement:
    return judge(truths, ignore or [NOTHING] * len(truths), views, resamples=50, **options)  # type: ignore[arg-type]


def test_numbers_by_hand() -> None:
    # Image 1: a red cell found, one missed, the ring called trophozoite, one spurious ring. Image 2: all right.
    seen = [
        cells((0, RED, 0.9), (101, TROPHOZOITE, 0.8), (200, RING, 0.7)),
        cells((0, RED, 0.9), (50, TROPHOZOITE, 0.6)),
    ]
    verdict = judged(FIELD, {"fused": seen}).verdicts["fused"]
    assert verdict.value("recall", "red blood cell") == pytest.approx(2 / 3)
    assert verdict.value("precision", "red blood cell") == 1
    assert verdict.value("precision", "trophozoite") == pytest.approx(1 / 2)
    assert verdict.value("f1", "trophozoite") == pytest.approx(2 / 3)
    assert verdict.value("f1", "ring") == 0
    assert verdict.value("f1", "schizont") is None
    assert verdict.value("macro_f1_stages") == pytest.approx((2 / 3 + 0) / 2)
    assert verdict.value("recall", "infected") == 1
    assert verdict.value("precision", "infected") == pytest.approx(2 / 3)
    # Pooled: hit .8, miss .7, hit .6. Half a false positive per image is one here, so both are found.
    assert verdict.value("infected_recall_at_0.5fp") == 1
    assert verdict.value("infected_recall_at_0.1fp") == pytest.approx(1 / 2)
    assert verdict.value("pooled_infected_ap50") == pytest.approx((51 * 1 + 50 * 2 / 3) / 101)
    assert verdict.value("ap50", "ring") == 0
    assert verdict.value("stages_ap50") == pytest.approx((0 + 0.5) / 2)
    # True 33.3 % and 50 %; counted 2 of 3 and 1 of 2.
    assert verdict.value("parasitaemia", "mae") == pytest.approx((100 / 3 + 0) / 2)
    assert verdict.value("parasitaemia", "bias") == pytest.approx((100 / 3 + 0) / 2)
    assert verdict.value("counts", "red blood cell", "bias") == pytest.approx(-1 / 2)
    expected = [100 * 1.5 / 2.4, 100 * 0.6 / 1.5]
    assert verdict.value("parasitaemia_expected", "mae") == pytest.approx(
        (expected[0] - 100 / 3 + 50 - expected[1]) / 2
    )


def test_the_json_holds_plain_numbers_and_intervals_apart() -> None:
    report = judged(FIELD, {"fused": FIELD, "infected": FIELD}).to_json()
    assert report["images"] == 2
    assert report["cells"]["red blood cell"] == 3
    fused = report["fused"]
    assert fused["ap50"]["ring"] == 1
    assert fused["ap50"]["leukocyte"] is None
    assert fused["infected_recall_at_0.5fp"] == 1
    assert fused["threshold"] == 0.2
    assert fused["intervals"]["ap50"]["ring"] == [1, 1]
    assert fused["intervals"]["ap50"]["leukocyte"] is None
    assert fused["confusion"]["counts"][0][0] == 3
    assert "red blood cell" in fused["recall"]
    # `infected` knows no red cells: nothing is said of them, nor of parasitaemia.
    assert report["infected"]["ap50"]["red blood cell"] is None
    assert "red blood cell" not in report["infected"]["recall"]
    assert "parasitaemia" not in report["infected"]
    assert report["infected"]["threshold"] == 0.5


def test_perfect_detections_are_perfect_everywhere() -> None:
    truths, _, ignore = random_images(4, images=8)
    crowded = [np.array([[0, 0, 1, 1]], dtype=np.float32)] * len(ignore)
    verdict = judged(truths, {"fused": truths}, crowded).verdicts["fused"]
    for key, number in verdict.numbers.items():
        if number.value is None or key == ("best_macro_f1_threshold",):
            continue
        wanted = 0 if key[0].startswith(("calibration", "parasitaemia", "counts")) else 1
        assert number.value == pytest.approx(wanted), key
        assert number.interval() == pytest.approx((wanted, wanted)), key


@pytest.mark.parametrize("seed", range(4))
def test_our_average_precision_is_that_of_faster_coco_eval(seed: int) -> None:
    truths, detections, ignore = random_images(seed, images=12)
    values = coco_ap(truths, ignore, detections)
    once = np.ones((1, len(truths)), dtype=np.int64)
    for index, iou in enumerate(IOUS):
        for channel, matches in match_images(truths, detections, ignore, float(iou)).items():
            ours = average_precision(matches, once)[0]
            assert ours == pytest.approx(values[channel][index], abs=1e-6, nan_ok=True), (channel, iou)
            assert resampled_ap(matches, once)[0] == pytest.approx(ours, abs=1e-9, nan_ok=True)
    assert sum(np.isfinite(values[channel][0]) for channel in CHANNELS) >= 5


def test_resampling_in_steps_is_the_same_as_matching_again() -> None:
    truths, detections, ignore = random_images(3, images=6)
    weights = resampled_weights(6, 40, seed=1)
    for matches in match_images(truths, detections, ignore).values():
        assert resampled_ap(matches, weights) == pytest.approx(average_precision(matches, weights), nan_ok=True)


@settings(max_examples=8, deadline=None)
@given(st.permutations(range(7)), st.integers(0, 3))
def test_the_order_of_the_images_changes_nothing(order: list[int], seed: int) -> None:
    truths, detections, ignore = random_images(seed, images=7)
    rng = np.random.default_rng(seed)  # no ties: COCO lets the first of equal scores go first
    detections = [
        replace(d, probabilities=(d.probabilities * rng.uniform(0.9, 1, d.probabilities.shape)).astype(np.float32))
        for d in detections
    ]
    one = judge(truths, ignore, {"fused": detections}, resamples=2).verdicts["fused"]
    other = judge(
        [truths[i] for i in order], [ignore[i] for i in order], {"fused": [detections[i] for i in order]}, resamples=2
    ).verdicts["fused"]
    for key, number in one.numbers.items():
        assert number.value == pytest.approx(other.numbers[key].value, abs=1e-9), key


def test_differences_between_views_are_paired() -> None:
    truths, detections, ignore = random_images(2, images=30)
    blind = [replace(d, probabilities=d.probabilities * np.float32(1e-4)) for d in detections]
    verdicts = judge(truths, ignore, {"fused": detections, "again": detections, "blind": blind}, resamples=200).verdicts
    number = verdicts["fused"].numbers["pooled_infected_ap50",]
    same = number.minus(verdicts["again"].numbers["pooled_infected_ap50",])
    assert (same.value, same.interval()) == (0, (0, 0))
    better = number.minus(verdicts["blind"].numbers["pooled_infected_ap50",])
    assert better.value == pytest.approx(number.value)
    assert better.interval()[0] > 0  # type: ignore[index]
    assert Number(None, np.full(3, np.nan)).minus(Number(1.0, np.ones(3))).value is None
    with pytest.raises(ValueError, match="as many resamples"):
        number.minus(Number(1.0, np.ones(3)))


def test_thresholds_decide_what_is_called_a_cell() -> None:
    seen = [cells((0, RED, 0.4), (50, RED, 0.3), (100, RING, 0.9)), cells((0, RED, 0.1), (50, TROPHOZOITE, 0.9))]
    verdicts = judged(FIELD, {"fused": seen, "all_cells": seen}, thresholds={"all_cells": 0.35}).verdicts
    assert verdicts["fused"].value("recall", "red blood cell") == pytest.approx(2 / 3)
    assert verdicts["all_cells"].value("recall", "red blood cell") == pytest.approx(1 / 3)
    assert verdicts["fused"].value("best_macro_f1_stages") == 1


def test_nothing_seen_is_no_error() -> None:
    verdict = judged(FIELD, {"fused": [Instances.empty((200, 300))] * 2}).verdicts["fused"]
    assert verdict.value("ap50", "ring") == 0
    assert verdict.value("ap", "schizont") is None
    assert verdict.value("pooled_infected_ap50") == 0
    assert verdict.value("infected_recall_at_0.5fp") == 0
    assert verdict.value("calibration_error", "infected") is None
    assert verdict.value("parasitaemia", "bias") == pytest.approx(-(100 / 3 + 50) / 2)
    assert {verdict.value("f1", name) for name in INFECTED} == {0, None}


def test_no_images_and_lists_that_disagree_are_refused() -> None:
    with pytest.raises(NotEnoughData, match="at least one"):
        judge([], [], {})
    with pytest.raises(NotEnoughData, match="'fused': 1"):
        judge(FIELD, [NOTHING] * 2, {"fused": FIELD[:1]})


def test_a_thousand_resamples_take_seconds() -> None:
    truths, detections, ignore = random_images(5, images=60, cells_each=100)
    started = time.process_time()
    report = judge(truths, ignore, {"fused": detections}).to_json()
    assert time.process_time() - started < 20
    assert all(low <= report["fused"]["ap50"][name] <= high for name, (low, high) in _intervals(report).items())


def _intervals(report: dict) -> dict:
    found = report["fused"]["intervals"]["ap50"]
    return {name: found[name] for name in CLASSES if found[name]}
