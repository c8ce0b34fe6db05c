"""How good two detectors are, each alone and fused, on images with known truth: every number with its interval.

Pure: truths and detections in, numbers out, so that it serves files, the record and pooled cross-validation alike.
Every number is a function of image weights; a bootstrap over images evaluates it under resampled weights, the same
ones for all views, so that differences between views are paired (`Number.minus`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from al_loop.judge_ap import IOUS, coco_ap, resampled_ap
from al_loop.judge_calibration import calibration
from al_loop.judge_cells import Assigned, Decisions, assign, best_decisions
from al_loop.judge_counts import Counts, agreement
from al_loop.judge_numbers import Judgement, Key, Number, Verdict, mean
from al_loop.metrics import (
    POOLED,
    Matches,
    match_images,
    recall_at_false_positives,
    resampled_weights,
)
from backend.errors import NotEnoughData
from backend.fuse import FusionConfig
from backend.instances import CLASS_INDEX, CLASSES, INFECTED, INFECTED_INDEX, ROLES, Instances, role_classes

FUSED = "fused"
VIEWS: tuple[str, ...] = (*ROLES, FUSED)
FROC = (0.1, 0.25, 0.5, 1.0, 2.0)  # false positives per image at which infected recall is read
# A detector alone calls a cell what is more likely than not one; fused cells are called as the expert is shown them.
THRESHOLDS: Mapping[str, float] = {FUSED: FusionConfig().show_threshold}
DEFAULT_THRESHOLD = 0.5


def judge(
    truths: Sequence[Instances],
    ignore: Sequence[NDArray[Any]],
    views: Mapping[str, Sequence[Instances]],
    *,
    thresholds: Mapping[str, float] | None = None,
    resamples: int = 1000,
    seed: int = 0,
    every_interval: bool = True,
) -> Judgement:
    """Judge what several views saw in the same images.

    truths: per image. ignore: per image (K, 4) boxes xyxy px that count neither way. views: name to detections per
    image; `all_cells` and `infected` are judged by the classes of their role, any other name by all. thresholds:
    P(there is a cell) from which a view calls a cell, by its name. every_interval=False leaves out the intervals of
    AP50:95, which take nine tenths of the time. Raises NotEnoughData without images, or when the
    lists disagree.
    """
    lengths = {name: len(seen) for name, seen in views.items()}
    if not truths or {len(truths), len(ignore), *lengths.values()} != {len(truths)}:
        raise NotEnoughData(
            f"evaluation: expected truths, regions to ignore and detections of the same images (at least one), "
            f"got {len(truths)}, {len(ignore)} and {lengths}"
        )
    weights = resampled_weights(len(truths), resamples, seed)
    chosen = {**THRESHOLDS, **(thresholds or {})}
    labels = np.concatenate([truth.labels for truth in truths])
    return Judgement(
        images=len(truths),
        cells={name: int((labels == index).sum()) for name, index in CLASS_INDEX.items()},
        verdicts={
            name: _verdict(name, truths, ignore, seen, chosen.get(name, DEFAULT_THRESHOLD), weights, every_interval)
            for name, seen in views.items()
        },
    )


def _verdict(
    name: str,
    truths: Sequence[Instances],
    ignore: Sequence[NDArray[Any]],
    seen: Sequence[Instances],
    threshold: float,
    weights: NDArray[np.int64],
    every_interval: bool,
) -> Verdict:
    known = role_classes(name) if name in ROLES else CLASSES
    numbers, matches = _average_precisions(truths, ignore, seen, known, weights, every_interval)
    assigned = [assign(truth, regions, found) for truth, regions, found in zip(truths, ignore, seen, strict=True)]
    decisions, counts = Decisions.of(assigned, threshold), Counts.of(assigned, threshold)
    reliability = calibration(assigned, known)
    for allowed in FROC:
        key = f"infected_recall_at_{allowed:g}fp"
        recall = partial(recall_at_false_positives, matches[POOLED], per_image=allowed)
        numbers[key,] = Number.of(recall, weights)
    numbers |= _decided(assigned, decisions, known, weights)
    numbers |= {("calibration_error", group): Number.of(table.error, weights) for group, table in reliability.items()}
    if len(known) == len(CLASSES):
        numbers |= _counted(counts, weights)
    return Verdict(numbers, matches, assigned, decisions, counts, reliability)


def _average_precisions(
    truths: Sequence[Instances],
    ignore: Sequence[NDArray[Any]],
    seen: Sequence[Instances],
    known: Sequence[str],
    weights: NDArray[np.int64],
    every_interval: bool,
) -> tuple[dict[Key, Number], dict[str, Matches]]:
    values = coco_ap(truths, ignore, seen)
    by_iou = [match_images(truths, seen, ignore, float(iou)) for iou in (IOUS if every_interval else IOUS[:1])]
    undefined = np.full(len(weights), np.nan)
    first: dict[str, Number] = {}
    over_ious: dict[str, Number] = {}
    for name in (*CLASSES, POOLED):
        learned = name == POOLED or name in known
        samples = [resampled_ap(matches[name], weights) if learned else undefined for matches in by_iou]
        first[name] = Number.at(float(values[name][0]) if learned else np.nan, samples[0])
        spread = np.mean(samples, axis=0) if every_interval else undefined
        over_ious[name] = Number.at(float(values[name].mean()) if learned else np.nan, spread)
    numbers: dict[Key, Number] = {}
    for title, table in (("ap50", first), ("ap", over_ious)):
        numbers |= {(title, name): table[name] for name in CLASSES}
        numbers[f"stages_{title}",] = mean([table[name] for name in INFECTED])
        numbers[f"pooled_infected_{title}",] = table[POOLED]
    return numbers, by_iou[0]


def _decided(
    assigned: Sequence[Assigned], decisions: Decisions, known: Sequence[str], weights: NDArray[np.int64]
) -> dict[Key, Number]:
    """Precision, recall and F1 per class and for the stages taken as one; macro F1 of the stages."""
    groups = {name: [CLASS_INDEX[name]] for name in known} | {POOLED: INFECTED_INDEX.tolist()}
    numbers: dict[Key, Number] = {}
    for score in ("precision", "recall", "f1"):
        for name, members in groups.items():
            numbers[score, name] = Number.of(partial(decisions.score, score, members), weights)
    best = best_decisions(assigned, INFECTED_INDEX.tolist())
    numbers["macro_f1_stages",] = Number.of(lambda w: decisions.macro_f1(INFECTED_INDEX.tolist(), w), weights)
    numbers["best_macro_f1_stages",] = Number.of(lambda w: best.macro_f1(INFECTED_INDEX.tolist(), w), weights)
    numbers["best_macro_f1_threshold",] = Number.at(best.threshold, np.full(len(weights), np.nan))
    return numbers


def _counted(counts: Counts, weights: NDArray[np.int64]) -> dict[Key, Number]:
    """Agreement of parasitaemia (percentage points) and of counts (cells) with the truth, per image."""
    everywhere = np.ones_like(counts.countable())
    tables = {
        ("parasitaemia",): (counts.true_percent(), counts.percent(), counts.countable()),
        ("parasitaemia_expected",): (counts.true_percent(), counts.expected_percent(), counts.countable()),
        ("counts", "infected"): (counts.true_infected, counts.infected, everywhere),
        ("counts", "red blood cell"): (counts.true_red, counts.red, everywhere),
        ("counts_expected", "infected"): (counts.true_infected, counts.expected_infected, everywhere),
        ("counts_expected", "red blood cell"): (counts.true_red, counts.expected_red, everywhere),
    }
    return {
        (*key, name): Number.of(statistic, weights)
        for key, (truth, estimate, among) in tables.items()
        for name, statistic in agreement(truth, estimate, among).items()
    }
