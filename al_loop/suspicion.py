"""Labels that may be wrong, for a second reading: another class, nothing there, overlooked, a badly placed box.

Whoever judges a label must not have learned from it: predictions are out of fold. A model that knows a class badly
doubts all of its labels, so probabilities are measured by what the model usually gives to labels of each class, as in
confident learning (Northcutt, Jiang and Chuang 2021, arXiv 1911.00068). Why this is ours and not cleanlab's scores for
object detection: docs/decisions/0021-suspicious-labels.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend.instances import CLASSES, FusedInstances
from backend.overlap import intersection_over_area, iou_matrix, match_one_to_one

KINDS: tuple[str, ...] = ("label", "nothing", "overlooked", "misplaced")
UNDECIDED = -1  # the label "difficult": a place that is labelled, but no class that could be wrong
USUAL_LABELS = 5.0  # so many labels are added to each class, at the mean of the classes: 3 labels prove little
LEAST_USUAL = 0.05


@dataclass(frozen=True)
class Suspect:
    """One possible error. cell: row among the image's labels; of kind "overlooked": among the cells seen.

    kind: "label", another class; "nothing", no cell; "overlooked", a cell without label; "misplaced", a box that does
    not fit. score: in [0, 1]. reason: in words, for the expert.
    """

    image: int
    cell: int
    kind: str
    score: float
    reason: str


@dataclass(frozen=True)
class LabelledField:
    """A completely labelled image, and what models show there that never learned from it.

    image: any number that names it. boxes: (L, 4) float32 xyxy px. labels: (L,) int64 index into CLASSES or UNDECIDED.
    seen: what an expert would be shown (`FusionConfig.show_threshold`); less is no evidence of a cell.
    """

    image: int
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    seen: FusedInstances


@dataclass(frozen=True)
class SuspicionConfig:
    """What counts as an error worth a look.

    least: lower scores are not listed. match_iou: box and prediction are the same cell. loose_iou: one cell, badly
    outlined, when neither has a better partner. fit_iou: boxes that overlap as much are well placed. sure: P(there is
    a cell) from which one without label was overlooked. edge_px: cells that near the edge are cut; some laboratories
    label them and some models show them, so where only one of the two does, nothing is wrong.
    """

    least: float = 0.5
    match_iou: float = 0.5
    loose_iou: float = 0.2
    fit_iou: float = 0.55
    sure: float = 0.5
    edge_px: float = 3.0


def suspicion(labels: NDArray[np.int64], probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """How suspicious each label is: (N,) float64 in [0, 1]; less probability for the given label is never less.

    labels: (N,) int64, index into K columns. probabilities: (N, K), calibrated and out of fold, rows summing to at most
    1; the rest is "no cell". With u_k, the mean probability of k among the cells labelled k, and u = 1 for "no cell",
    the score is 1 - (p_label / u_label) / sum_k p_k / u_k. Raises ValueError when shapes or indices do not fit.
    """
    labels, shares = np.asarray(labels), np.clip(np.asarray(probabilities, dtype=np.float64), 0.0, 1.0)
    if labels.ndim != 1 or shares.ndim != 2 or len(labels) != len(shares) or not np.isfinite(shares).all():
        raise ValueError(
            f"expected labels (N,) and finite probabilities (N, K), got shapes {labels.shape}, {shares.shape}"
        )
    if not len(labels):
        return np.zeros(0)
    if labels.min() < 0 or labels.max() >= shares.shape[1]:
        raise ValueError(f"expected labels 0..{shares.shape[1] - 1}, got {labels.min()}..{labels.max()}")
    rows = np.arange(len(labels))
    given = shares[rows, labels]
    counts = np.bincount(labels, minlength=shares.shape[1])
    sums = np.bincount(labels, weights=given, minlength=shares.shape[1])
    typical = float((sums[counts > 0] / counts[counts > 0]).mean())
    usual = np.maximum((sums + USUAL_LABELS * typical) / (counts + USUAL_LABELS), LEAST_USUAL)
    measured = shares / usual
    everything = measured.sum(axis=1) + np.clip(1.0 - shares.sum(axis=1), 0.0, 1.0)
    share = np.divide(measured[rows, labels], everything, out=np.zeros(len(labels)), where=everything > 0)
    return np.clip(1.0 - share, 0.0, 1.0)


def suspects(fields: Sequence[LabelledField], config: SuspicionConfig | None = None) -> list[Suspect]:
    """Everything that may be wrong in these images, the most suspicious first; a label can be of two kinds."""
    config = config or SuspicionConfig()
    partners = [_partners(field, config) for field in fields]
    found = [
        *mislabelled(fields, partners, config),
        *nothing_there(fields, partners, config),
        *(s for f, p in zip(fields, partners, strict=True) for s in overlooked(f, p, config)),
        *(s for f, p in zip(fields, partners, strict=True) for s in misplaced(f, p, config)),
    ]
    kept = [suspect for suspect in found if suspect.score >= config.least]
    return sorted(kept, key=lambda s: (-s.score, s.image, KINDS.index(s.kind), s.cell))


def _partners(field: LabelledField, config: SuspicionConfig) -> NDArray[np.int64]:
    """(L,) int64: the cell seen at each label, -1 without one. Good fits first, then loose ones among what is left."""
    partner = np.full(len(field.boxes), -1, dtype=np.int64)
    iou = iou_matrix(field.boxes, field.seen.cells.boxes)
    presence = field.seen.cells.probabilities.sum(axis=1)
    for threshold in (config.match_iou, config.loose_iou):
        left = np.flatnonzero(partner < 0)
        free = np.setdiff1d(np.arange(len(presence)), partner)
        sure = (np.ones(len(left)), presence[free])
        for i, j in match_one_to_one(iou[np.ix_(left, free)], threshold, sure):
            partner[left[i]] = free[j]
    return partner


def _inside(boxes: NDArray[np.float32], image_size: tuple[int, int], edge_px: float) -> NDArray[np.bool_]:
    height, width = image_size
    return np.all((boxes >= edge_px) & (boxes <= np.array([width, height] * 2) - edge_px), axis=1)


def mislabelled(
    fields: Sequence[LabelledField], partners: Sequence[NDArray[np.int64]], config: SuspicionConfig
) -> Iterator[Suspect]:
    """Labels of another class than the models', each with its `suspicion`. partners: (L,) per field."""
    found = [np.flatnonzero((p >= 0) & (f.labels != UNDECIDED)) for f, p in zip(fields, partners, strict=True)]
    if not sum(map(len, found)):
        return
    labels = np.concatenate([f.labels[rows] for f, rows in zip(fields, found, strict=True)])
    shares = np.concatenate(
        [_shares(f, p[rows], config.edge_px) for f, p, rows in zip(fields, partners, found, strict=True)]
    )
    scores = iter(zip(suspicion(labels, shares), shares, strict=True))
    for field, rows in zip(fields, found, strict=True):
        for row in rows.tolist():
            score, share = next(scores)
            given = int(field.labels[row])
            best = int(np.where(np.arange(len(share)) == given, -1.0, share).argmax())
            rest = max(1 - float(share.sum()), 0.0)
            said = f"{CLASSES[best]} {share[best]:.2f}" if share[best] > rest else f"perhaps no cell ({rest:.2f})"
            yield Suspect(field.image, row, "label", float(score), f"Labelled {CLASSES[given]}; the models say {said}")


def _shares(field: LabelledField, rows: NDArray[np.int64], edge_px: float) -> NDArray[np.float32]:
    """(R, len(CLASSES)): probabilities of these cells seen; of those the edge cuts, given that there is a cell."""
    cells = field.seen.cells
    found = cells.probabilities[rows]
    whole = _inside(cells.boxes[rows], cells.image_size, edge_px)[:, None]
    return np.where(whole, found, found / found.sum(axis=1, keepdims=True))


def nothing_there(
    fields: Sequence[LabelledField], partners: Sequence[NDArray[np.int64]], config: SuspicionConfig
) -> Iterator[Suspect]:
    """Labels where the models see no cell; the score is the share of the class's labels where they see one."""
    labels = np.concatenate([field.labels for field in fields]) if fields else np.zeros(0, dtype=np.int64)
    matched = np.concatenate(partners) >= 0 if partners else np.zeros(0, dtype=bool)
    seen = {index: float(matched[labels == index].mean()) for index in np.unique(labels).tolist()}
    for field, partner in zip(fields, partners, strict=True):
        whole = _inside(field.boxes, field.seen.cells.image_size, config.edge_px)
        for row in np.flatnonzero((partner < 0) & (field.labels != UNDECIDED) & whole).tolist():
            index = int(field.labels[row])
            reason = f"Labelled {CLASSES[index]}; the models, which see {seen[index]:.0%} of these, see no cell"
            yield Suspect(field.image, row, "nothing", seen[index], reason)


def overlooked(field: LabelledField, partner: NDArray[np.int64], config: SuspicionConfig) -> Iterator[Suspect]:
    """Cells the models are sure of that no label is near; the score is P(there is a cell) * (1 - best IoU)."""
    cells = field.seen.cells
    presence = np.minimum(cells.probabilities.sum(axis=1), 1.0)
    iou = iou_matrix(cells.boxes, field.boxes).max(axis=1, initial=0.0)
    covered = intersection_over_area(cells.boxes, field.boxes).max(axis=1, initial=0.0)
    whole = _inside(cells.boxes, cells.image_size, config.edge_px)
    alone = (presence >= config.sure) & (covered < config.match_iou) & whole
    alone[partner[partner >= 0]] = False
    for row in np.flatnonzero(alone).tolist():
        best = int(cells.probabilities[row].argmax())
        reason = f"No label here; the models say {CLASSES[best]} {cells.probabilities[row, best]:.2f}"
        yield Suspect(field.image, row, "overlooked", float(presence[row] * (1 - iou[row])), reason)


def misplaced(field: LabelledField, partner: NDArray[np.int64], config: SuspicionConfig) -> Iterator[Suspect]:
    """Boxes that do not fit what the models outline alike; the score is their agreement * (1 - IoU).

    The agreement is the IoU of the two models' boxes; of a cell that only one saw, P(there is a cell).
    """
    cells = field.seen.cells
    iou = iou_matrix(field.boxes, cells.boxes)
    agreement = np.where(np.isnan(field.seen.pair_iou), cells.probabilities.sum(axis=1), field.seen.pair_iou)
    for row in np.flatnonzero(partner >= 0).tolist():
        fit, alike = float(iou[row, partner[row]]), float(min(agreement[partner[row]], 1.0))
        if fit < config.fit_iou:
            reason = f"The box overlaps {fit:.2f} with what the models outline (sure of it: {alike:.2f})"
            yield Suspect(field.image, row, "misplaced", alike * (1 - fit), reason)
