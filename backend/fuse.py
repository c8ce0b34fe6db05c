"""Make one set of cells out of what the two detectors saw: one class distribution per cell.

Averaging boxes and scores (Weighted Boxes Fusion) is wrong for this pair: a red cell that only `all_cells` can know
would lose half its score, and one cell called "red .9" and "ring .8" would stay as two. Instead:

1. Each model's scores are calibrated, so that .8 means the same from both.
2. Boxes are matched whatever their class (IoU, one to one).
3. Is it a cell, and red or leukocyte: `all_cells` alone. Infected, and which stage: both, as weighted log-odds; where
   `infected` saw nothing, that counts against a parasite.
4. "Not infected" against "infected" becomes infected and disputed: a person must look.
5. A box that only `infected` saw is kept above a threshold.
6. Cells that the image's edge cuts: some laboratories label them, others do not. What validation says of them is added
   to their log-odds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.instances import CLASSES, INFECTED_INDEX, SOURCES, FusedInstances, Instances, Rle
from backend.overlap import iou_matrix, match_one_to_one

Floats = NDArray[np.float64]

SILENCE = 0.05  # raw score below which a detector reports nothing (`DetectorConfig.score_threshold`)
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

    match_iou: boxes are the same cell from here on. infected_threshold: calibrated probability from which the word of
    `infected` counts against "not infected". keep_threshold: the same for boxes that nobody else saw; lower, for a
    missed parasite costs more than a deleted box. show_threshold: P(there is a cell) from which an expert is shown it:
    drawing a missed cell takes some four times as long as deleting a wrong box, so the two costs meet at 1 / (1 + 4).
    Weights combine log-odds of the two models.
    edge_offset: log-odds added to P(there is a cell) for boxes within edge_px of the image's edge: below 0 where the
    laboratory leaves cut cells unlabelled.
    Calibrations: cell, P(there is a cell), and stage, P(infected | cell), by `all_cells`; infected, P(infected), by
    `infected`.
    """

    match_iou: float = 0.5
    infected_threshold: float = 0.5
    keep_threshold: float = 0.2
    show_threshold: float = 0.2
    weight_all_cells: float = 0.5
    weight_infected: float = 0.5
    edge_px: float = 3.0
    edge_offset: float = 0.0
    cell: Platt = field(default_factory=Platt)
    stage: Platt = field(default_factory=Platt)
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
        parts = {name: Platt(**values[name]) for name in ("cell", "stage", "infected") if name in values}
        return cls(**{**values, **parts})


def at_edge(boxes: NDArray[np.float32], image_size: tuple[int, int], edge_px: float) -> NDArray[np.bool_]:
    """(N,) bool: boxes (N, 4) xyxy px that come within `edge_px` of the edge of an image of size (h, w)."""
    height, width = image_size
    gaps = np.stack([boxes[:, 0], boxes[:, 1], width - boxes[:, 2], height - boxes[:, 3]], axis=1)
    return np.asarray((gaps <= edge_px).any(axis=1))


@dataclass(frozen=True)
class _Beliefs:
    """What one model says, calibrated, per cell (N,). stages: (N, 4) shares in the order of INFECTED_INDEX."""

    cell: Floats
    infected: Floats
    stages: Floats


def _shares(columns: NDArray[Any]) -> Floats:
    raised = np.asarray(columns, dtype=np.float64) + _TINY
    return raised / raised.sum(axis=1, keepdims=True)


def infected_share(cells: Instances) -> Floats:
    """(N,) P(infected | there is a cell), uncalibrated: the infected part of all class probabilities."""
    whole = cells.probabilities.sum(axis=1, dtype=np.float64)
    part = cells.probabilities[:, INFECTED_INDEX].sum(axis=1, dtype=np.float64)
    return part / np.maximum(whole, _TINY)


def infected_score(cells: Instances) -> Floats:
    """(N,) P(an infected cell), uncalibrated: the sum over the stages."""
    return np.clip(cells.probabilities[:, INFECTED_INDEX].sum(axis=1, dtype=np.float64), 0, 1)


def _combine(a: Floats, b: Floats, config: FusionConfig) -> Floats:
    return sigmoid(config.weight_all_cells * logit(a) + config.weight_infected * logit(b))


def _combine_stages(a: Floats, b: Floats, config: FusionConfig) -> Floats:
    """Weighted geometric mean of two stage distributions (N, 4), normalised."""
    share = config.weight_all_cells / (config.weight_all_cells + config.weight_infected)
    logs = share * np.log(a) + (1 - share) * np.log(b)
    raised = np.exp(logs - logs.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def fuse(all_cells: Instances, infected: Instances, config: FusionConfig | None = None) -> FusedInstances:
    """The cells either model saw, surest first, each with one distribution over CLASSES.

    A row of `probabilities` sums to P(there is a cell). The label is decided in two steps, infected or not and then
    which; `scores` is its probability. Masks are kept when both models bring them: the surer model's.
    Every cell of `all_cells` is in the result. fuse(a, a) keeps every cell, its box and its source as "both".
    """
    config = config or FusionConfig()
    if all_cells.image_size != infected.image_size:
        raise ValueError(f"fusing: expected two views of one image, got {all_cells.image_size}, {infected.image_size}")
    iou = iou_matrix(all_cells.boxes, infected.boxes)
    pairs = np.array(match_one_to_one(iou, config.match_iou), dtype=np.int64).reshape(-1, 2)
    score_infected = config.infected(infected_score(infected))
    unseen = np.setdiff1d(np.arange(len(infected)), pairs[:, 1])
    unseen = unseen[score_infected[unseen] >= config.keep_threshold]
    alone = np.setdiff1d(np.arange(len(all_cells)), pairs[:, 0])

    # One row per fused cell: index into each model's cells, or -1 where that model saw nothing.
    i = np.concatenate([pairs[:, 0], alone, np.full(len(unseen), -1)]).astype(np.int64)
    j = np.concatenate([pairs[:, 1], np.full(len(alone), -1), unseen]).astype(np.int64)
    both, only_infected = (i >= 0) & (j >= 0), i < 0

    ours, theirs = _believe_all_cells(all_cells, config), _believe_infected(infected, score_infected)
    beliefs, disputed = _judge(ours, theirs, i, j, config)
    boxes = _boxes(all_cells, infected, i, j, _pick(ours.cell, i), _pick(theirs.cell, j))
    cut = at_edge(boxes, all_cells.image_size, config.edge_px)
    beliefs = replace(beliefs, cell=np.where(cut, sigmoid(logit(beliefs.cell) + config.edge_offset), beliefs.cell))
    probabilities = np.zeros((len(i), len(CLASSES)))
    probabilities[:, INFECTED_INDEX] = (beliefs.cell * beliefs.infected)[:, None] * beliefs.stages
    if len(all_cells):
        healthy = _shares(all_cells.probabilities[:, _HEALTHY_INDEX])[np.maximum(i, 0)]
        probabilities[:, _HEALTHY_INDEX] = (beliefs.cell * (1 - beliefs.infected))[:, None] * healthy
    probabilities[np.ix_(only_infected, _HEALTHY_INDEX)] = 0.0

    infected_label = INFECTED_INDEX[probabilities[:, INFECTED_INDEX].argmax(axis=1)]
    healthy_label = _HEALTHY_INDEX[probabilities[:, _HEALTHY_INDEX].argmax(axis=1)]
    labels = np.where(beliefs.infected >= 0.5, infected_label, healthy_label).astype(np.int64)
    scores = probabilities[np.arange(len(i)), labels]
    order = np.lexsort((np.arange(len(i)), -beliefs.cell))
    surer = np.where(both, _pick(ours.cell, i) >= _pick(theirs.cell, j), ~only_infected)
    cells = Instances(
        image_size=all_cells.image_size,
        boxes=boxes,
        labels=labels,
        scores=scores.astype(np.float32),
        probabilities=probabilities.astype(np.float32),
        masks=_masks(all_cells, infected, i, j, surer),
    )
    return FusedInstances(
        cells=cells.select(order),
        score_all_cells=_best_score(all_cells, i)[order],
        score_infected=_best_score(infected, j)[order],
        sources=np.where(both, _BOTH, np.where(only_infected, _INFECTED, _ALL_CELLS)).astype(np.int64)[order],
        pair_iou=np.where(both, _pair_iou(iou, i, j), np.nan).astype(np.float32)[order],
        disputed=disputed[order],
    )


def _believe_all_cells(cells: Instances, config: FusionConfig) -> _Beliefs:
    return _Beliefs(
        cell=config.cell(cells.scores),
        infected=config.stage(infected_share(cells)),
        stages=_shares(cells.probabilities[:, INFECTED_INDEX]),
    )


def _believe_infected(cells: Instances, score: Floats) -> _Beliefs:
    """`infected` speaks of infected cells only: what it sees is one, as sure as it is that there is anything."""
    return _Beliefs(cell=score, infected=score, stages=_shares(cells.probabilities[:, INFECTED_INDEX]))


def _pick(values: Floats, index: NDArray[np.int64]) -> Floats:
    """values[index] along the first axis, and 0 where the index is -1."""
    if not len(values):
        return np.zeros((len(index), *values.shape[1:]))
    seen = (index >= 0).reshape(-1, *[1] * (values.ndim - 1))
    return np.where(seen, values[np.maximum(index, 0)], 0.0)


def _judge(
    ours: _Beliefs, theirs: _Beliefs, i: NDArray[np.int64], j: NDArray[np.int64], config: FusionConfig
) -> tuple[_Beliefs, NDArray[np.bool_]]:
    """Beliefs about each fused cell, and whether the models contradict each other."""
    both, only_infected = (i >= 0) & (j >= 0), i < 0
    mine, other = _pick(ours.infected, i), _pick(theirs.infected, j)
    my_stages, other_stages = _pick(ours.stages, i), _pick(theirs.stages, j)
    claimed = both & (other >= config.infected_threshold)
    overruled = claimed & (mine < 0.5)
    other_stage = my_stages.argmax(axis=1) != other_stages.argmax(axis=1)
    # It reports whatever it believes by more than SILENCE: no word from it is a word against a parasite.
    silence = float(config.infected(np.array([SILENCE]))[0])
    combined = _combine(mine, np.where(both, other, silence), config)
    # A claim is never averaged away: at least as infected as the claimant says, and at least "more likely than not".
    combined = np.where(overruled, np.maximum(np.maximum(combined, other), 0.5), combined)
    stages = np.where(only_infected[:, None], other_stages, my_stages)
    if both.any():
        stages[both] = _combine_stages(my_stages[both], other_stages[both], config)
    beliefs = _Beliefs(
        cell=np.maximum(_pick(ours.cell, i), _pick(theirs.cell, j)),
        infected=np.where(only_infected, 1.0, combined),
        stages=stages,
    )
    return beliefs, np.asarray(overruled | (claimed & other_stage), dtype=bool)


def _best_score(cells: Instances, index: NDArray[np.int64]) -> NDArray[np.float32]:
    """Raw probability of each cell's best class, NaN where this model saw nothing."""
    best = _pick(cells.probabilities.max(axis=1).astype(np.float64) if len(cells) else np.zeros(0), index)
    return np.where(index >= 0, best, np.nan).astype(np.float32)


def _pair_iou(iou: NDArray[np.float32], i: NDArray[np.int64], j: NDArray[np.int64]) -> NDArray[np.float32]:
    return iou[np.maximum(i, 0), np.maximum(j, 0)] if iou.size else np.zeros(len(i), dtype=np.float32)


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
