import time

import numpy as np
import pytest
from faster_coco_eval import COCO, COCOeval_faster

from al_loop.metrics import (
    CHANNELS,
    MATCH_IOU,
    POOLED,
    SCORE_FLOOR,
    EvaluationReport,
    Matches,
    average_precision,
    channel_members,
    channel_scores,
    evaluate_detections,
    recall_at_false_positives,
    resampled_weights,
)
from backend.errors import NotEnoughData
from backend.instances import CLASS_INDEX, CLASSES, Instances

SIZE = (200, 300)
RED, RING, TROPHOZOITE = (CLASS_INDEX[name] for name in ("red blood cell", "ring", "trophozoite"))
NOTHING = np.zeros((0, 4), dtype=np.float32)


def cells(*rows: tuple[float, int, float]) -> Instances:
    """Cells 20 px wide from (left edge px, class index, score)."""
    boxes = np.array([[x, 10, x + 20, 30] for x, _, _ in rows], dtype=np.float32).reshape(-1, 4)
    labels = np.array([label for _, label, _ in rows], dtype=np.int64)
    return Instances.of(SIZE, boxes, labels, np.array([score for *_, score in rows], dtype=np.float32))


def random_images(seed: int, images: int, cells_each: int = 25) -> tuple[list, list, list]:
    """Truths, noisy detections with whole class distributions (and ties), and regions to ignore."""
    rng = np.random.default_rng(seed)
    truths, detections, ignore = [], [], []
    for _ in range(images):
        n = int(rng.integers(0, cells_each))
        corners = rng.uniform(0, [SIZE[1] - 40, SIZE[0] - 40], (n, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(15, 30, (n, 2))], axis=1).astype(np.float32)
        labels = rng.choice(len(CLASSES), n, p=[0.5, 0.2, 0.15, 0.1, 0.05, 0.0])
        kept = rng.uniform(size=n) < 0.8
        extra = int(rng.integers(0, 8))
        corners = rng.uniform(0, [SIZE[1] - 40, SIZE[0] - 40], (extra, 2))
        false = np.concatenate([corners, corners + 25], axis=1)
        seen = np.concatenate([boxes[kept] + rng.normal(0, 2.5, (int(kept.sum()), 4)), false])
        seen = np.clip(seen, 0, [SIZE[1], SIZE[0]] * 2).astype(np.float32)
        probabilities = rng.dirichlet(np.full(len(CLASSES) + 1, 0.4), len(seen))[:, :-1].round(2) * 0.98
        hit = np.arange(int(kept.sum()))
        probabilities[hit] *= 0.5
        probabilities[hit, labels[kept]] += 0.5
        detections.append(
            Instances(
                image_size=SIZE,
                boxes=seen,
                labels=probabilities.argmax(axis=1).astype(np.int64),
                scores=probabilities.max(axis=1, initial=0).astype(np.float32),
                probabilities=probabilities.astype(np.float32),
            )
        )
        difficult = rng.uniform(size=n) < 0.1
        truths.append(Instances.of(SIZE, boxes[~difficult], labels[~difficult]))
        ignore.append(boxes[difficult])
    return truths, detections, ignore


def coco_ap50(truths: list, detections: list, ignore: list, channel: str) -> float:
    """AP50 of one channel by faster-coco-eval, the field's reference: pooled over the images, ignore as crowds."""
    annotations, results = [], []
    for index, (truth, seen, regions) in enumerate(zip(truths, detections, ignore, strict=True)):
        crowds = [(box, 1) for box in regions]
        for box, crowd in [(box, 0) for box in truth.boxes[channel_members(truth, channel)]] + crowds:
            x1, y1, x2, y2 = (float(value) for value in box)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index,
                    "category_id": 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": crowd,
                }
            )
        for box, score in zip(seen.boxes, channel_scores(seen, channel), strict=True):
            if score >= SCORE_FLOOR:
                x1, y1, x2, y2 = (float(value) for value in box)
                results.append(
                    {"image_id": index, "category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": float(score)}
                )
    images = [{"id": index, "height": SIZE[0], "width": SIZE[1]} for index in range(len(truths))]
    truth = COCO({"images": images, "annotations": annotations, "categories": [{"id": 1, "name": channel}]})
    evaluator = COCOeval_faster(truth, truth.loadRes(results), iouType="bbox", print_function=lambda *_: None)
    evaluator.params.iouThrs = np.array([MATCH_IOU])
    evaluator.params.maxDets = [1, 10, 10_000]
    evaluator.evaluate()
    evaluator.accumulate()
    return float(evaluator.eval["precision"][0, :, 0, 0, -1].mean())


def test_average_precision_by_hand():
    truths = [cells((0, RED, 1), (50, RED, 1)), cells((0, RED, 1))]
    detections = [cells((0, RED, 0.9), (100, RED, 0.8), (50, RED, 0.7)), cells((150, RED, 0.6))]
    report = evaluate_detections(truths, detections, [NOTHING, NOTHING], resamples=50)
    # Hit, miss, hit, miss with three true cells: recall 1/3 at precision 1 (34 of the 101 points 0.00..0.33),
    # recall 2/3 at precision 2/3 (33 points 0.34..0.66), nothing beyond.
    assert report.value("ap50", "red blood cell") == pytest.approx((34 * 1 + 33 * 2 / 3) / 101)
    assert report.metric("ap50", "red blood cell").n == 3
    assert report.metric("ap50", "leukocyte").value is None


def test_a_second_box_on_the_same_cell_is_wrong():
    report = evaluate_detections([cells((0, RED, 1))], [cells((1, RED, 0.9), (0, RED, 0.8))], [NOTHING], resamples=5)
    assert report.matches["red blood cell"].hits.tolist() == [True, False]


def test_detections_on_a_region_to_ignore_cost_nothing():
    truth, seen = [cells((0, RED, 1))], [cells((100, RED, 0.9), (0, RED, 0.8))]
    punished = evaluate_detections(truth, seen, [NOTHING], resamples=5)
    spared = evaluate_detections(truth, seen, [np.array([[95, 5, 125, 35]])], resamples=5)
    assert punished.value("ap50", "red blood cell") == pytest.approx(0.5)
    assert spared.value("ap50", "red blood cell") == pytest.approx(1)


def test_pooled_infected_forgives_the_wrong_stage():
    report = evaluate_detections(
        [cells((0, RING, 1), (50, RED, 1))], [cells((0, TROPHOZOITE, 0.9), (50, RED, 0.9))], [NOTHING], resamples=5
    )
    assert report.value("ap50", "ring") == 0
    assert report.value("pooled_infected_ap50") == pytest.approx(1)
    assert report.value("infected_recall_at_0.5fp") == 1


def test_recall_at_half_a_false_positive_per_image_by_hand():
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    hits = np.array([True, False, True, False, True])
    image = np.array([0, 1, 1, 0, 0])
    matches = Matches(scores, hits, image, truths=np.array([2, 1]))
    once = np.ones((1, 2), dtype=np.int64)
    # Two images allow one false positive: the threshold .7 finds two of three.
    assert recall_at_false_positives(matches, once)[0] == pytest.approx(2 / 3)
    # Image 0 alone, twice: 0.9 hit and 0.5 hit with the miss 0.6 counted twice, one allowed.
    assert recall_at_false_positives(matches, np.array([[2, 0]]))[0] == pytest.approx(1 / 2)
    # Equal scores stand or fall together: .7 and .6 tie, and taking both would cost two.
    tied = Matches(np.array([0.9, 0.8, 0.6, 0.6, 0.5]), hits, image, matches.truths)
    assert recall_at_false_positives(tied, once)[0] == pytest.approx(1 / 3)


@pytest.mark.parametrize("seed", range(6))
def test_average_precision_agrees_with_faster_coco_eval(seed):
    truths, detections, ignore = random_images(seed, images=12)
    report = evaluate_detections(truths, detections, ignore, resamples=5)
    compared = 0
    for channel in CHANNELS:
        matches = report.matches[channel]
        if matches.truths.sum():
            ours = average_precision(matches, np.ones((1, len(truths)), dtype=np.int64))[0]
            assert ours == pytest.approx(coco_ap50(truths, detections, ignore, channel), abs=1e-6)
            compared += 1
    assert compared >= 5


def test_weighting_an_image_equals_repeating_it():
    truths, detections, ignore = random_images(3, images=5)
    matches = evaluate_detections(truths, detections, ignore, resamples=5).matches
    weights = np.array([[2, 0, 1, 0, 2]])
    chosen = [0, 0, 2, 4, 4]
    repeated = evaluate_detections(
        [truths[i] for i in chosen], [detections[i] for i in chosen], [ignore[i] for i in chosen], resamples=5
    ).matches
    once = np.ones((1, 5), dtype=np.int64)
    for channel in ("red blood cell", POOLED):
        for metric in (average_precision, recall_at_false_positives):
            assert metric(matches[channel], weights)[0] == pytest.approx(metric(repeated[channel], once)[0])


def test_the_interval_holds_the_value_and_shrinks_with_more_images():
    widths = []
    for images in (8, 80):
        truths, detections, ignore = random_images(1, images)
        metric = evaluate_detections(truths, detections, ignore).metric("pooled_infected_ap50")
        assert metric.low <= metric.value <= metric.high
        widths.append(metric.high - metric.low)
    assert widths[1] < widths[0] / 2


def test_a_report_survives_json():
    truths, detections, ignore = random_images(2, images=4)
    report = evaluate_detections(truths, detections, ignore, resamples=20)
    again = EvaluationReport.from_json(report.to_json())
    assert again.values == report.values
    assert np.array_equal(again.matches[POOLED].scores, report.matches[POOLED].scores)


def test_every_resample_draws_as_many_images_and_the_seed_decides():
    weights = resampled_weights(7, 100, seed=3)
    assert (weights.sum(axis=1) == 7).all()
    assert np.array_equal(weights, resampled_weights(7, 100, seed=3))
    assert not np.array_equal(weights, resampled_weights(7, 100, seed=4))


def test_nothing_to_evaluate_is_refused():
    with pytest.raises(NotEnoughData, match="got 0, 0 and 0"):
        evaluate_detections([], [], [])


def test_the_whole_official_test_split_takes_seconds():
    truths, detections, ignore = random_images(5, images=120, cells_each=130)
    started = time.perf_counter()
    evaluate_detections(truths, detections, ignore)
    assert time.perf_counter() - started < 20
