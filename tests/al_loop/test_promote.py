import numpy as np
import pytest

from al_loop.metrics import EvaluationReport, evaluate_detections
from al_loop.promote import GateConfig, gate
from backend.errors import NotEnoughData
from backend.instances import CLASS_INDEX, Instances

SIZE = (100, 1000)
RED, RING = CLASS_INDEX["red blood cell"], CLASS_INDEX["ring"]


def report(found_rings: float, found_reds: float = 1.0, images: int = 40, rings: int = 2) -> EvaluationReport:
    """A detector that finds this share of the rings and red cells, by chance but always the same ones."""
    rng = np.random.default_rng(11)
    truths, detections = [], []
    for _ in range(images):
        labels = np.array([RING] * rings + [RED] * 8)
        x = np.arange(len(labels)) * 60.0
        boxes = np.stack([x, x * 0 + 10, x + 30, x * 0 + 40], axis=1)
        draw = rng.uniform(size=len(labels))
        found = draw < np.where(labels == RING, found_rings, found_reds)
        truths.append(Instances.of(SIZE, boxes, labels))
        detections.append(
            Instances.of(SIZE, boxes[found], labels[found], np.full(int(found.sum()), 0.9, dtype=np.float32))
        )
    ignore = [np.zeros((0, 4))] * images
    return evaluate_detections(truths, detections, ignore, resamples=20)


def test_a_better_candidate_passes():
    verdict = gate(report(0.5), report(0.9))
    assert verdict.promote
    recall = verdict.numbers["infected recall at 0.5 false positives per image"]
    assert recall["low"] > 0.1
    assert recall["candidate"] > recall["incumbent"]


def test_a_poisoned_candidate_is_refused_and_says_why():
    verdict = gate(report(0.9), report(0.1))
    assert not verdict.promote
    assert verdict.reasons[0].startswith("infected recall at 0.5 false positives per image 0.9")
    assert "may be worse by more than 0.02" in verdict.reasons[0]
    assert any(reason.endswith("falls") and reason.startswith("ring") for reason in verdict.reasons)


def test_a_tie_is_not_inferior():
    verdict = gate(report(0.7), report(0.7))
    assert verdict.promote
    assert verdict.numbers["pooled infected AP50"]["low"] == 0


def test_better_rings_do_not_excuse_lost_red_cells():
    verdict = gate(report(0.5, found_reds=1.0), report(0.9, found_reds=0.7))
    assert not verdict.promote
    assert verdict.reasons[0].startswith("red blood cell AP50 1.000")


def test_a_small_class_is_reported_but_not_judged():
    verdict = gate(report(0.9, rings=1, images=12), report(0.6, rings=1, images=12), GateConfig(delta=1.0))
    assert verdict.promote
    assert any(reason.startswith("ring AP50") and "too few" in reason for reason in verdict.reasons)


def test_the_verdict_repeats_exactly():
    assert gate(report(0.6), report(0.65)) == gate(report(0.6), report(0.65))


def test_without_infected_cells_nothing_can_be_shown():
    verdict = gate(report(0.5, rings=0), report(0.5, rings=0))
    assert not verdict.promote
    assert "no infected cell" in verdict.reasons[0]


def test_reports_of_different_images_cannot_be_compared():
    with pytest.raises(NotEnoughData, match="same images"):
        gate(report(0.5, images=10), report(0.5, images=11))
