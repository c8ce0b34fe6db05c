"""The gate: shown not to be worse, class by class, in what its probabilities mean, and by labels that look right."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from al_loop.gate import GateConfig, Judged, Verdict, gate
from al_loop.judge_counts import Reliability
from al_loop.label_audit import LabelAudit
from al_loop.metrics import EvaluationReport, evaluate_detections
from backend.errors import NotEnoughData
from backend.instances import CLASS_INDEX, Instances

SIZE = (100, 1000)
RED, RING, SCHIZONT = (CLASS_INDEX[name] for name in ("red blood cell", "ring", "schizont"))


def compared(incumbent: EvaluationReport, candidate: EvaluationReport, config: GateConfig | None = None) -> Verdict:
    """The gate on reports alone, as evaluations of earlier times are."""
    return gate(Judged(incumbent, {}), Judged(candidate, {}), config)


def report(
    found_rings: float, found_reds: float = 1.0, images: int = 40, rings: int = 2, called: int = RING
) -> EvaluationReport:
    """A detector that finds this share of the rings and red cells, by chance but always the same ones.

    called: what it calls the rings it finds.
    """
    rng = np.random.default_rng(11)
    truths, detections = [], []
    for _ in range(images):
        labels = np.array([RING] * rings + [RED] * 8)
        x = np.arange(len(labels)) * 60.0
        boxes = np.stack([x, x * 0 + 10, x + 30, x * 0 + 40], axis=1)
        draw = rng.uniform(size=len(labels))
        found = draw < np.where(labels == RING, found_rings, found_reds)
        named = np.where(labels == RING, called, labels)
        truths.append(Instances.of(SIZE, boxes, labels))
        detections.append(
            Instances.of(SIZE, boxes[found], named[found], np.full(int(found.sum()), 0.9, dtype=np.float32))
        )
    ignore = [np.zeros((0, 4))] * images
    return evaluate_detections(truths, detections, ignore, resamples=20)


def test_a_better_candidate_passes():
    verdict = compared(report(0.5), report(0.9))
    assert verdict.promote
    recall = verdict.numbers["infected recall at 0.5 false positives per image"]
    assert recall["low"] > 0.1
    assert recall["candidate"] > recall["incumbent"]


def test_a_blind_candidate_is_refused_and_says_why():
    verdict = compared(report(0.9), report(0.1))
    assert not verdict.promote
    assert verdict.reasons[0].startswith("infected recall at 0.5 false positives per image 0.9")
    assert "it is worse, maybe by more than 0.0612" in verdict.reasons[0]
    assert any("worse" in reason and reason.startswith("ring AP50") for reason in verdict.reasons)


def test_a_tie_is_not_inferior():
    verdict = compared(report(0.7), report(0.7))
    assert verdict.promote
    assert verdict.numbers["pooled infected AP50"]["low"] == 0


def test_better_rings_do_not_excuse_lost_red_cells():
    verdict = compared(report(0.5, found_reds=1.0), report(0.9, found_reds=0.7))
    assert not verdict.promote
    assert verdict.reasons[0].startswith("red blood cell AP50 1.000")


def test_a_small_class_is_reported_but_not_judged():
    verdict = compared(report(0.9, rings=1, images=12), report(0.6, rings=1, images=12), GateConfig(delta=1.0))
    assert verdict.promote
    assert any(reason.startswith("ring AP50") and "reported only" in reason for reason in verdict.reasons)


def test_the_verdict_repeats_exactly():
    assert compared(report(0.6), report(0.65)) == compared(report(0.6), report(0.65))


def test_without_infected_cells_nothing_can_be_shown():
    verdict = compared(report(0.5, rings=0), report(0.5, rings=0))
    assert not verdict.promote
    assert "no infected cell" in verdict.reasons[0]


def test_reports_of_different_images_cannot_be_compared():
    with pytest.raises(NotEnoughData, match="same images"):
        compared(report(0.5, images=10), report(0.5, images=11))


def test_rings_called_schizonts_are_seen_although_infected_cells_are_found_as_before():
    verdict = compared(report(0.9, rings=1, images=20), report(0.9, rings=1, images=20, called=SCHIZONT))
    assert not verdict.promote
    assert verdict.numbers["pooled infected AP50"]["difference"] == 0
    [reason] = [each for each in verdict.reasons if "worse" in each and "not worse" not in each]
    assert reason.startswith("AP50 of infected cells by stage"), "20 rings are too few to be judged as a class"


def test_the_margin_of_a_class_grows_as_its_cells_get_fewer():
    config = GateConfig(delta=0.02)
    margins = [config.margin(0.1, n) for n in (1, 30, 120, 3000)]
    assert margins == [0.1, 0.1, pytest.approx(0.05), 0.02]


def claims(claimed: float, observed: float, images: int = 40, each: int = 20) -> Reliability:
    """One bin: on every image, `each` detections that claim and turn out to be so at these rates, but for noise."""
    noise = np.random.default_rng(3).normal(0, 0.02, images)
    rows = [(np.clip(rate + shift, 0, 1) * each)[:, None] for rate, shift in ((claimed, noise), (observed, -noise))]
    return Reliability(rows[0], rows[1], np.full((images, 1), float(each)))


@pytest.mark.parametrize(("claimed", "passes"), [(0.5, True), (0.7, False), (0.3, False)])
def test_probabilities_that_mean_less_than_before_are_refused(claimed: float, passes: bool):
    incumbent = Judged(report(0.7), {"infected": claims(0.5, 0.5)})
    verdict = gate(incumbent, Judged(report(0.7), {"infected": claims(claimed, 0.5)}))
    assert verdict.promote == passes
    [reason] = [each for each in verdict.reasons if each.startswith("calibration error of P(infected)")]
    assert ("is worse" in reason) != passes
    better = gate(Judged(report(0.7), {"infected": claims(claimed, 0.5)}), incumbent)
    assert better.promote


def test_labels_that_look_wrong_are_refused_and_what_to_do_is_said():
    right = LabelAudit(asked=80, labelled=90, missed=0.02, renamed=0.01, high=0.09, test_asked=90)
    audits = [
        right,
        replace(right, missed=0.2, renamed=0.12, high=0.43),
        replace(right, asked=4, high=0.5),
        replace(right, stage="ring", stage_asked=12, stage_wrong=1.0, stage_low=0.8),
    ]
    verdicts = [gate(Judged(report(0.7), {}), Judged(report(0.7), {}, audit)) for audit in audits]
    assert [verdict.promote for verdict in verdicts] == [True, False, False, False]
    assert any("at most 9%: shown to be less than 20%" in reason for reason in verdicts[0].reasons)
    assert "32% seem to be labelled wrong (20% not as infected, 12% as another stage)" in verdicts[1].reasons[0]
    assert "have them read again" in verdicts[1].reasons[0]
    assert "review more cells" in verdicts[2].reasons[0]
    assert "of 12 that it calls ring, 100%, at least 80%" in verdicts[3].reasons[0]
