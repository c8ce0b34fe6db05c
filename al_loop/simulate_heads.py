"""The two heads of the simulation: what two detectors would learn from the answers so far, in a second.

Each is a logistic regression on a cell's features whose prior is the detector's own word: without an answer it repeats
what the detector says, and every answer moves it away from there. `all_cells` tells the classes and "no cell" apart;
`infected` tells infected cells from all else, balanced, as the detector that is retrained most.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from al_loop.softmax_regression import fit_softmax
from backend.fuse import sigmoid
from backend.instances import CLASSES, INFECTED_INDEX

Floats = NDArray[np.float64]

NO_CELL = len(CLASSES)  # an answer beside the classes
UNDECIDED = NO_CELL + 1  # the expert called it difficult: neither for nor against anything
ANSWERS = (*CLASSES, "no cell", "difficult")
FLOOR = 1e-3  # of the detector's probabilities, whose logarithm the heads begin with


@dataclass(frozen=True)
class Views:
    """What the heads say of N cells. probabilities: (N, len(CLASSES)) float64, fused; the rest to 1 is "no cell".

    all_cells: (N, len(CLASSES) + 1), with "no cell". infected: (N,), P(an infected cell).
    """

    probabilities: Floats
    all_cells: Floats
    infected: Floats


@dataclass(frozen=True)
class Heads:
    """Weights over `inputs`. all_cells: (D, len(CLASSES) + 1). infected: (D, 2), not infected first; offset: log-odds
    that class balance has added to it.
    """

    all_cells: Floats
    infected: Floats
    offset: float

    def look(self, inputs: Floats) -> Views:
        """What these heads say of cells (N, D) as `inputs_of` gives them."""
        shares = softmax(inputs @ self.all_cells, axis=1)
        theirs = inputs @ (self.infected[:, 1] - self.infected[:, 0]) - self.offset
        return _fused(shares, theirs)


def inputs_of(features: NDArray[np.float32], detector: NDArray[np.floating]) -> Floats:
    """(N, D): features (N, F), a constant, and the logarithms of the detector's probabilities (N, len(CLASSES))."""
    rest = np.clip(1 - detector.sum(axis=1, keepdims=True), 0, 1)
    words = np.log(np.maximum(np.concatenate([detector, rest], axis=1, dtype=np.float64), FLOOR))
    infected = np.clip(detector[:, INFECTED_INDEX].sum(axis=1, dtype=np.float64), FLOOR, 1 - FLOOR)
    odds = np.stack([np.log1p(-infected), np.log(infected)], axis=1)
    return np.concatenate([features.astype(np.float64), np.ones((len(features), 1)), words, odds], axis=1)


def prior(inputs: Floats) -> Heads:
    """Heads that say what the detector says."""
    width, words = inputs.shape[1], len(CLASSES) + 1
    all_cells, infected = np.zeros((width, words)), np.zeros((width, 2))
    all_cells[width - words - 2 : width - 2] = np.eye(words)
    infected[width - 2 :] = np.eye(2)
    return Heads(all_cells, infected, 0.0)


def fit_heads(inputs: Floats, answers: NDArray[np.int64], decay: float, before: Heads | None = None) -> Heads:
    """Heads that learned from these cells. inputs: (N, D). answers: (N,), indices into ANSWERS; undecided ones teach
    nothing. before: where to begin; it changes the time and not the result.
    """
    start = prior(inputs)
    before = before or start
    known = answers != UNDECIDED
    inputs, answers = inputs[known], answers[known]
    if not len(answers):
        return start
    sick = np.isin(answers, INFECTED_INDEX)
    share = np.clip(sick.mean(), 1 / (len(sick) + 1), 1 - 1 / (len(sick) + 1))
    balance = np.where(sick, 0.5 / share, 0.5 / (1 - share))
    all_cells = fit_softmax(inputs, answers, np.ones(len(answers)), start.all_cells, before.all_cells, decay)
    infected = fit_softmax(inputs, sick.astype(np.int64), balance, start.infected, before.infected, decay)
    return Heads(all_cells, infected, float(np.log(1 - share) - np.log(share)))


def _fused(shares: Floats, theirs: Floats) -> Views:
    """As `backend.fuse` does it: infected by the mean of both log-odds, the stage and all else by `all_cells`."""
    mine = np.clip(shares[:, INFECTED_INDEX].sum(axis=1), 1e-9, 1 - 1e-9)
    sick = sigmoid((np.log(mine) - np.log1p(-mine) + theirs) / 2)
    named = shares[:, :NO_CELL] * ((1 - sick) / (1 - mine))[:, None]
    named[:, INFECTED_INDEX] = shares[:, INFECTED_INDEX] * (sick / mine)[:, None]
    return Views(named, shares, sigmoid(theirs))
