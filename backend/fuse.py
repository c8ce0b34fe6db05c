"""Make one set of cells out of what the two detectors saw: one class distribution per cell.

Averaging boxes and scores (Weighted Boxes Fusion) is wrong for this pair: a red cell that only `all_cells` can know
would lose half its score, and one cell called "red .9" and "ring .8" would stay as two. Instead:

1. Boxes are matched whatever their class (IoU, one to one).
2. Is it infected? Each detector gives a probability; a detector that reports nothing there gives its lowest one. Their
   log-odds, weighted, give one probability: a logistic regression, fitted on validation.
3. Which stage? The two distributions' weighted geometric mean.
4. If not infected, is it a healthy cell at all, and which? `all_cells` alone; `infected` cannot know.
5. Cells that the image's edge cuts: some laboratories label them, others do not. What validation says of them is added
   to their log-odds.
6. Where one detector says infected and the other does not, or they name different stages, a person must look.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from backend.instances import CLASSES, INFECTED_INDEX, SOURCES, FusedInstances, Instances, Rle
from backend.overlap import iou_matrix, match_one_to_one

Floats = NDArray[np.float64]

SILENCE = 0.05  # raw score below which a detector reports nothing (`DetectorConfig.score_threshold`)
# Before anything is fitted. Fits on BBBC041 and IML gave `all_cells` .1 to .35 and `infected` 1.2 to 1.7, and the word
# on the stage to `infected` alone.
WEIGHTS = (0.25, 1.25)
STAGE_SHARE = 0.2
_TINY = 1e-6
_HEALTHY_INDEX = np.array([index for index in range(len(CLASSES)) if index not in INFECTED_INDEX])
_BOTH, _ALL_CELLS, _INFECTED = (SOURCES.index(name) for name in ("both", "all_cells", "infected"))


def logit(p: NDArray[Any]) -> Floats:
    """log(p / (1 - p)), finite for every p in [0, 1]."""
    p = np.clip(np.asarray(p, dtype=np.float64), _TINY, 1 - _TINY)
    return np.log(p) - np.log1p(-p)


def sigmoid(x: NDArray[Any]) -> Floats:
    """1 / (1 + exp(-x))."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * np.asarray(x, dtype=np.float64))))


@dataclass(frozen=True)
class Platt:
    """Calibrated p = sigmoid(a * logit(raw) + b), a > 0: order is kept. The default changes nothing."""

    a: float = 1.0
    b: float = 0.0

    def __post_init__(self) -> None:
        if not (np.isfinite(self.a) and np.isfinite(self.b) and self.a > 0):
            raise ValueError(f"a calibration: expected finite a > 0 and finite b, got a={self.a}, b={self.b}")

    def __call__(self, p: NDArray[Any]) -> Floats:
        return sigmoid(self.a * logit(p) + self.b)


@dataclass(frozen=True)
class FusionConfig:
    """How to fuse; fitted on validation by `fit_fusion`, stored with the model pair as JSON.

    match_iou: boxes are the same cell from here on. Weights and bias: of the logistic regression on the log-odds that
    each detector gives to "an infected cell". stage_share: how much of the word on the stage `all_cells` has.
    infected_threshold: share of P(infected) in P(there is a cell) from which a cell is called infected, and
    show_threshold: P(there is a cell) from which an expert is shown it. Both are 1 / (1 + 4): a missed parasite, or
    drawing a missed cell, costs some four times what a wrong box costs. keep_threshold: calibrated score of a box that
    only `infected` saw, from which it is kept.
    edge_offset: log-odds added to P(a healthy cell) for boxes within edge_px of the image's edge: below 0 where the
    laboratory leaves cut cells unlabelled.
    Calibrations: healthy, P(a healthy cell | not an infected one) by `all_cells`; infected, P(infected) by `infected`.
    """

    match_iou: float = 0.5
    infected_threshold: float = 0.2
    keep_threshold: float = 0.2
    show_threshold: float = 0.2
    weight_all_cells: float = WEIGHTS[0]
    weight_infected: float = WEIGHTS[1]
    bias: float = 0.0
    stage_share: float = STAGE_SHARE
    edge_px: float = 3.0
    edge_offset: float = 0.0
    healthy: Platt = field(default_factory=Platt)
    infected: Platt = field(default_factory=Platt)

    def __post_init__(self) -> None:
        if min(self.weight_all_cells, self.weight_infected) < 0 or self.weight_all_cells + self.weight_infected <= 0:
            raise ValueError("fusion weights: expected two numbers >= 0, not both 0")

    def to_json(self) -> dict[str, Any]:
        """Plain values, nested."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> FusionConfig:
        """The configuration `to_json` gave; an empty mapping gives the default."""
        parts = {name: Platt(**values[name]) for name in ("healthy", "infected") if name in values}
        return cls(**{**values, **parts})


def at_edge(boxes: NDArray[np.float32], image_size: tuple[int, int], edge_px: float) -> NDArray[np.bool_]:
    """(N,) bool: boxes (N, 4) xyxy px that come within `edge_px` of the edge of an image of size (h, w)."""
    height, width = image_size
    gaps = np.stack([boxes[:, 0], boxes[:, 1], width - boxes[:, 2], height - boxes[:, 3]], axis=1)
    return np.asarray((gaps <= edge_px).any(axis=1))


def _shares(columns: NDArray[Any]) -> Floats:
    raised = np.asarray(columns, dtype=np.float64) + _TINY
    return raised / raised.sum(axis=1, keepdims=True)


def infected_score(cells: Instances) -> Floats:
    """(N,) P(an infected cell), uncalibrated: the sum over the stages."""
    return np.clip(cells.probabilities[:, INFECTED_INDEX].sum(axis=1, dtype=np.float64), 0, 1)


def healthy_score(cells: Instances) -> Floats:
    """(N,) P(a healthy cell | not an infected one), uncalibrated."""
    healthy = cells.probabilities[:, _HEALTHY_INDEX].sum(axis=1, dtype=np.float64)
    return np.clip(healthy / np.maximum(1 - infected_score(cells), _TINY), 0, 1)


class Pairing(NamedTuple):
    """Which boxes are one cell: per cell (N,) the index into each detector's cells, -1 where it saw nothing.

    First the pairs, then what only `all_cells` saw, then what only `infected` saw.
    """

    i: NDArray[np.int64]
    j: NDArray[np.int64]
    iou: NDArray[np.float32]

    @property
    def both(self) -> NDArray[np.bool_]:
        return np.asarray((self.i >= 0) & (self.j >= 0))


def pair_up(all_cells: Instances, infected: Instances, match_iou: float) -> Pairing:
    """All boxes of both detectors, matched one to one whatever their class."""
    iou = iou_matrix(all_cells.boxes, infected.boxes)
    pairs = np.array(match_one_to_one(iou, match_iou, (all_cells.scores, infected.scores)), dtype=np.int64).reshape(
        -1, 2
    )
    alone = np.setdiff1d(np.arange(len(all_cells)), pairs[:, 0])
    unseen = np.setdiff1d(np.arange(len(infected)), pairs[:, 1])
    i = np.concatenate([pairs[:, 0], alone, np.full(len(unseen), -1)]).astype(np.int64)
    j = np.concatenate([pairs[:, 1], np.full(len(alone), -1), unseen]).astype(np.int64)
    both = (i >= 0) & (j >= 0)
    overlap = iou[np.maximum(i, 0), np.maximum(j, 0)] if iou.size else np.zeros(len(i), dtype=np.float32)
    return Pairing(i, j, np.where(both, overlap, np.nan).astype(np.float32))


def odds(all_cells: Instances, infected: Instances, pairing: Pairing, config: FusionConfig) -> tuple[Floats, Floats]:
    """(N,), (N,) log-odds of "an infected cell" by `all_cells` and by `infected`, calibrated where `config` is."""
    mine = np.where(pairing.i >= 0, _pick(infected_score(all_cells), pairing.i), SILENCE)
    theirs = np.where(pairing.j >= 0, _pick(infected_score(infected), pairing.j), SILENCE)
    # Saying less than SILENCE is silence too: whether .01 or .001 tells nothing (measured: it costs recall).
    return logit(np.maximum(mine, SILENCE)), logit(config.infected(np.maximum(theirs, SILENCE)))


def fuse(all_cells: Instances, infected: Instances, config: FusionConfig | None = None) -> FusedInstances:
    """The cells either model saw, surest first, each with one distribution over CLASSES.

    A row of `probabilities` sums to P(there is a cell). The label is decided in two steps, infected or not and then
    which; `scores` is its probability. Masks are kept when both models bring them: the surer model's.
    Every cell of `all_cells` is in the result. fuse(a, a) keeps every cell, its box and its source as "both".
    """
    config = config or FusionConfig()
    if all_cells.image_size != infected.image_size:
        raise ValueError(f"fusing: expected two views of one image, got {all_cells.image_size}, {infected.image_size}")
    worth = config.infected(infected_score(infected))
    pairing = pair_up(all_cells, infected, config.match_iou)
    kept = (pairing.i >= 0) | (_pick(worth, pairing.j) >= config.keep_threshold)
    pairing = Pairing(pairing.i[kept], pairing.j[kept], pairing.iou[kept])
    i, j, both, only_infected = pairing.i, pairing.j, pairing.both, pairing.i < 0

    mine, theirs = odds(all_cells, infected, pairing, config)
    sick = sigmoid(config.weight_all_cells * mine + config.weight_infected * theirs + config.bias)
    boxes = _boxes(all_cells, infected, i, j, _pick(all_cells.scores, i), _pick(worth, j))
    edge = np.where(at_edge(boxes, all_cells.image_size, config.edge_px), config.edge_offset, 0.0)
    well = sigmoid(logit(config.healthy(_pick(healthy_score(all_cells), i))) + edge)
    well = np.where(only_infected, 0.0, (1 - sick) * well)

    stages, other_stage = _stages(all_cells, infected, i, j, config)
    probabilities = np.zeros((len(i), len(CLASSES)))
    probabilities[:, INFECTED_INDEX] = sick[:, None] * stages
    probabilities[:, _HEALTHY_INDEX] = well[:, None] * _shares(_pick(all_cells.probabilities[:, _HEALTHY_INDEX], i))

    infected_label = INFECTED_INDEX[probabilities[:, INFECTED_INDEX].argmax(axis=1)]
    healthy_label = _HEALTHY_INDEX[probabilities[:, _HEALTHY_INDEX].argmax(axis=1)]
    called = sick >= config.infected_threshold * (sick + well)
    labels = np.where(called, infected_label, healthy_label).astype(np.int64)
    order = np.lexsort((np.arange(len(i)), -(sick + well)))
    claimed = both & (theirs >= 0)
    surer = np.where(both, _pick(all_cells.scores, i) >= _pick(worth, j), ~only_infected)
    cells = Instances(
        image_size=all_cells.image_size,
        boxes=boxes,
        labels=labels,
        scores=probabilities[np.arange(len(i)), labels].astype(np.float32),
        probabilities=probabilities.astype(np.float32),
        masks=_masks(all_cells, infected, i, j, surer),
    )
    return FusedInstances(
        cells=cells.select(order),
        score_all_cells=_best_score(all_cells, i)[order],
        score_infected=_best_score(infected, j)[order],
        sources=np.where(both, _BOTH, np.where(only_infected, _INFECTED, _ALL_CELLS)).astype(np.int64)[order],
        pair_iou=pairing.iou[order],
        disputed=np.asarray(claimed & ((mine < 0) | other_stage), dtype=bool)[order],
    )


def _stages(
    all_cells: Instances, infected: Instances, i: NDArray[np.int64], j: NDArray[np.int64], config: FusionConfig
) -> tuple[Floats, NDArray[np.bool_]]:
    """(N, 4) distribution over the stages, in the order of INFECTED_INDEX; (N,) bool: both saw it and named others."""
    mine, theirs = (
        _shares(_pick(cells.probabilities[:, INFECTED_INDEX], index))
        for cells, index in ((all_cells, i), (infected, j))
    )
    share = np.where(i < 0, 0.0, np.where(j < 0, 1.0, config.stage_share))[:, None]
    return mix_stages(mine, theirs, share), np.asarray(mine.argmax(axis=1) != theirs.argmax(axis=1))


def mix_stages(mine: Floats, theirs: Floats, share: Floats | float) -> Floats:
    """Weighted geometric mean of two stage distributions (N, 4), normalised; share: of `mine`."""
    logs = share * np.log(mine) + (1 - share) * np.log(theirs)
    raised = np.exp(logs - logs.max(axis=1, keepdims=True, initial=-np.inf))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def _pick(values: NDArray[Any], index: NDArray[np.int64]) -> Floats:
    """values[index] along the first axis, and 0 where the index is -1."""
    values = np.asarray(values, dtype=np.float64)
    if not len(values):
        return np.zeros((len(index), *values.shape[1:]))
    seen = (index >= 0).reshape(-1, *[1] * (values.ndim - 1))
    return np.where(seen, values[np.maximum(index, 0)], 0.0)


def _best_score(cells: Instances, index: NDArray[np.int64]) -> NDArray[np.float32]:
    """Raw probability of each cell's best class, NaN where this model saw nothing."""
    best = _pick(cells.probabilities.max(axis=1).astype(np.float64) if len(cells) else np.zeros(0), index)
    return np.where(index >= 0, best, np.nan).astype(np.float32)


def _boxes(
    a: Instances, b: Instances, i: NDArray[np.int64], j: NDArray[np.int64], sure_a: Floats, sure_b: Floats
) -> NDArray[np.float32]:
    """Each cell's box: the two models' corners weighted by how sure each is that the cell is there."""
    weight = np.stack([np.where(i >= 0, sure_a + _TINY, 0.0), np.where(j >= 0, sure_b + _TINY, 0.0)], axis=1)
    share = (weight / weight.sum(axis=1, keepdims=True))[:, :, None]
    corners = _pick(a.boxes.astype(np.float64), i) * share[:, 0] + _pick(b.boxes.astype(np.float64), j) * share[:, 1]
    return corners.astype(np.float32)


def _masks(
    a: Instances, b: Instances, i: NDArray[np.int64], j: NDArray[np.int64], first: NDArray[np.bool_]
) -> list[Rle] | tuple[()]:
    """Each cell's mask from the first or the second model; none at all unless every cell seen has one."""
    if len(a.masks) < len(a) or len(b.masks) < len(b):
        return ()
    return [a.masks[x] if use_a else b.masks[y] for x, y, use_a in zip(i, j, first, strict=True)]
