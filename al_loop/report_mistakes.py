"""The worst mistakes of a view, surest first: what a person should look at to understand where it fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from al_loop.judge_cells import Assigned
from al_loop.metrics import MATCH_IOU
from backend.instances import CLASSES, INFECTED_INDEX, Instances
from backend.overlap import iou_matrix

KINDS = {
    "missed": "Infected cells that were missed",
    "spurious": "Called infected, but not",
    "stage": "Infected, but of another stage",
}


@dataclass(frozen=True)
class Mistake:
    """One wrong decision. kind: of KINDS. image: index. box: (4,) float32 xyxy px. weight: how sure the view was.

    truth, called: class names; "nothing" where there is no such cell, "missed" where nothing was called.
    """

    kind: str
    image: int
    box: NDArray[np.float32]
    truth: str
    called: str
    weight: float


def mistakes(
    truths: Sequence[Instances], seen: Sequence[Instances], assigned: Sequence[Assigned], threshold: float, most: int
) -> dict[str, list[Mistake]]:
    """The `most` worst mistakes of each kind, worst first. A cell missed or called healthy with confidence is worst."""
    found: dict[str, list[Mistake]] = {kind: [] for kind in KINDS}
    for image, (truth, cells, match) in enumerate(zip(truths, seen, assigned, strict=True)):
        for mistake in _of_image(image, truth, cells, match, threshold):
            found[mistake.kind].append(mistake)
    return {
        kind: sorted(each, key=lambda m: (-m.weight, m.image, m.box.tolist()))[:most] for kind, each in found.items()
    }


def _of_image(image: int, truth: Instances, cells: Instances, match: Assigned, threshold: float) -> list[Mistake]:
    found = []
    kept = np.flatnonzero(match.decided(threshold))
    partner = {int(match.truth[row]): row for row in kept if match.truth[row] >= 0}
    for index in np.flatnonzero(np.isin(truth.labels, INFECTED_INDEX)):
        row = partner.get(int(index))
        called = "missed" if row is None else CLASSES[match.labels[row]]
        if row is None or match.labels[row] not in INFECTED_INDEX:
            believed = match.infected[match.truth == index].max(initial=0.0)
            mistake = ("missed", truth.boxes[index], CLASSES[truth.labels[index]], called, 1 - float(believed))
            found.append(Mistake(mistake[0], image, *mistake[1:]))
        elif match.labels[row] != truth.labels[index]:
            sure = float(cells.probabilities[row, match.labels[row]])
            found.append(Mistake("stage", image, truth.boxes[index], CLASSES[truth.labels[index]], called, sure))
    for row in kept[np.isin(match.labels[kept], INFECTED_INDEX) & ~match.is_infected()[kept]]:
        is_cell = match.truth[row] >= 0
        name = CLASSES[truth.labels[match.truth[row]]] if is_cell else "nothing"
        called = CLASSES[match.labels[row]]
        found.append(Mistake("spurious", image, cells.boxes[row], name, called, float(match.infected[row])))
    return found


def said_about(box: NDArray[np.float32], views: Mapping[str, Instances]) -> dict[str, str]:
    """What each view says at this box (4,) xyxy px: its best overlapping cell's class and probability."""
    words = {}
    for view, cells in views.items():
        iou = iou_matrix(box[None], cells.boxes)[0]
        if not len(iou) or iou.max() < MATCH_IOU:
            words[view] = "nothing"
            continue
        index = int(iou.argmax())
        sick = cells.probabilities[index, INFECTED_INDEX].sum()
        share = cells.probabilities[index, cells.labels[index]]
        words[view] = f"{CLASSES[cells.labels[index]]} {share:.2f}, P(infected) {sick:.2f}"
    return words


def wrong_per_image(assigned: Sequence[Assigned], threshold: float) -> NDArray[np.int64]:
    """(I,) int64: decisions about infected cells that are wrong, missed and spurious ones alike."""
    wrong = []
    for match in assigned:
        table = match.confusion(threshold)
        sick = np.zeros(len(table), dtype=bool)
        sick[INFECTED_INDEX] = True
        involved = sick[:, None] | sick[None, :]
        wrong.append(int(table[involved].sum() - table[INFECTED_INDEX, INFECTED_INDEX].sum()))
    return np.asarray(wrong, dtype=np.int64)
