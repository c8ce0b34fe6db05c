"""Whole fields as pictures: truth and what each view sees, side by side, for the fields that tell most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from al_loop.judge_numbers import Verdict
from al_loop.report_drawing import Pixels, outlined, side_by_side
from al_loop.report_mistakes import wrong_per_image
from al_loop.report_plots import order
from backend.instances import INFECTED_INDEX, Instances

TRUTH = "truth"
WIDTH = 900  # px of one panel

Panel = tuple[Pixels, str]


def choose_fields(truths: Sequence[Instances], verdict: Verdict, most: int, seed: int = 0) -> list[tuple[int, str]]:
    """At most `most` images and why each was chosen: most infected cells, most mistakes about them, and at random."""
    infected = np.array([np.isin(truth.labels, INFECTED_INDEX).sum() for truth in truths])
    wrong = wrong_per_image(verdict.assigned, verdict.decisions.threshold)
    chosen: dict[int, str] = {}
    for index in np.argsort(-infected, kind="stable")[: most * 3 // 8]:
        chosen[int(index)] = f"among the most infected cells: {infected[index]}"
    for index in np.argsort(-wrong, kind="stable"):
        if len(chosen) < most * 6 // 8 and wrong[index]:
            chosen.setdefault(int(index), f"among the most mistakes about infected cells: {wrong[index]}")
    for index in np.random.default_rng(seed).permutation(len(truths)):
        if len(chosen) < most:
            chosen.setdefault(int(index), "chosen at random")
    return list(chosen.items())


def panels(
    image: Pixels, truth: Instances, seen: Mapping[str, Instances], thresholds: Mapping[str, float]
) -> dict[str, Panel]:
    """Truth and each view as a picture WIDTH px wide and in words, by name; a view's cells from its threshold on."""
    found = {TRUTH: (outlined(image, truth, WIDTH, scores=False), _in_words(truth))}
    for view in order(list(seen)):
        cells = seen[view].select(seen[view].probabilities.sum(axis=1) >= thresholds[view])
        found[view] = (outlined(image, cells, WIDTH), _in_words(cells))
    return found


def _in_words(cells: Instances) -> str:
    names = cells.class_names()
    counts = {name: names.count(name) for name in dict.fromkeys(sorted(names))}
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "no cell"


def row_of(drawn: Mapping[str, Panel]) -> Pixels:
    """All panels of a field in one picture."""
    return side_by_side({name: pixels for name, (pixels, _) in drawn.items()})
