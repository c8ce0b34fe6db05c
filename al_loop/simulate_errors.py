"""Second readings of a simulation: are the answers that an expert got wrong among those read again first?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from al_loop.simulate_heads import UNDECIDED, Floats, fit_heads
from al_loop.suspicion import suspicion

FOLDS = 5
FIRST = 0.2  # of the second readings


def out_of_fold(inputs: Floats, labels: NDArray[np.int64], groups: NDArray[np.int64], decay: float) -> Floats:
    """(N, K) what heads say of each cell that learned from other slides only. inputs: (N, D). groups: (N,) slides."""
    names, member = np.unique(groups, return_inverse=True)
    count = min(FOLDS, len(names))
    sizes = np.bincount(member)
    fold = np.zeros(len(names), dtype=np.int64)
    filled = np.zeros(count)
    for group in np.argsort(-sizes, kind="stable"):  # the largest first, each into the emptiest fold
        fold[group] = int(filled.argmin())
        filled[fold[group]] += sizes[group]
    found: list[tuple[NDArray[np.bool_], Floats]] = []
    for number in range(count):
        held = fold[member] == number
        heads = fit_heads(inputs[~held], labels[~held], decay)
        found.append((held, heads.look(inputs[held]).all_cells))
    result = np.zeros((len(labels), found[0][1].shape[1]))
    for held, part in found:
        result[held] = part
    return result


def errors_found(
    inputs: Floats, answers: NDArray[np.int64], truth: NDArray[np.int64], slides: NDArray[np.int64], decay: float
) -> float | None:
    """The share of wrong answers among the FIRST of the second readings; None without a wrong answer.

    inputs: (N, D) of the reviewed cells, with what was answered, what is true, and their slides. Undecided cells are
    read again anyway and do not count.
    """
    known = answers != UNDECIDED
    inputs, answers, truth, slides = inputs[known], answers[known], truth[known], slides[known]
    wrong = answers != truth
    if not wrong.any():
        return None
    doubted = suspicion(answers, out_of_fold(inputs, answers, slides, decay))
    first = np.argsort(-doubted, kind="stable")[: int(np.ceil(FIRST * len(answers)))]
    return float(wrong[first].sum() / wrong.sum())
