"""Why a cell is shown, in one sentence that an expert understands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from al_loop.acquisition import DOUBTS, CellScores, PoolCells, cell_terms
from backend.instances import CLASSES, INFECTED_INDEX

MUCH = 0.3  # disagreement from which an open question is told as that: it says more than a probability


@dataclass(frozen=True)
class RankedCell:
    """One cell's score, every term of it, and the reason shown to the expert. index: row in the PoolCells."""

    index: int
    score: float
    terms: dict[str, Any]
    reason: str


def rank_cells(cells: PoolCells, scores: CellScores) -> list[RankedCell]:
    """Cells with a score above 0, best first, with terms and a reason in words. Cells that score 0 are not listed."""
    order = np.argsort(-scores.score, kind="stable")
    ranked = []
    for index in order[: int((scores.score > 0).sum())].tolist():
        terms = cell_terms(cells, scores, index)
        ranked.append(RankedCell(index, float(scores.score[index]), terms, reason(cells, scores, index)))
    return ranked


def reason(cells: PoolCells, scores: CellScores, index: int) -> str:
    """Why this cell is shown, in one sentence for the expert."""
    probabilities = cells.probabilities[index]
    first, second = np.argsort(-probabilities, kind="stable")[:2]
    strongest = DOUBTS[scores.strongest[index]]
    if scores.doubt[index] == 0:
        return f"A {CLASSES[first]} ({probabilities[first]:.2f}) that nobody has confirmed"
    if strongest == "infected" and scores.doubts[index, DOUBTS.index("disagreement")] > MUCH:
        strongest = "disagreement"  # why it is open
    if strongest == "infected":
        infected = float(probabilities[INFECTED_INDEX].sum())
        stage = CLASSES[INFECTED_INDEX[probabilities[INFECTED_INDEX].argmax()]]
        return f"Infected or not? {infected:.2f} that it is, most like {stage}"
    if strongest == "difficult":
        if cells.difficult[index] >= 1:
            return "An expert could not decide: please read again"
        return f"Like cells that experts found difficult ({cells.difficult[index]:.2f})"
    if strongest == "suspicion":
        return f"Its label may be wrong: the models say {CLASSES[first]} {probabilities[first]:.2f}"
    if strongest == "novelty":
        return f"Unlike any cell reviewed so far; the models say {CLASSES[first]} {probabilities[first]:.2f}"
    if strongest == "localisation":
        return f"The two models outline it differently (overlap {cells.pair_iou[index]:.2f})"
    if strongest == "disagreement":
        heard = [
            f"{name} {'silent' if np.isnan(score) else f'{score:.2f}'}"
            for name, score in (
                ("all_cells", cells.score_all_cells[index]),
                ("infected", cells.score_infected[index]),
            )
        ]
        return f"The two models disagree: {', '.join(heard)}; together {CLASSES[first]}"
    if probabilities[second] < 0.1:
        return f"Perhaps no cell: {CLASSES[first]} only {probabilities[first]:.2f}"
    return f"{CLASSES[first]} {probabilities[first]:.2f} or {CLASSES[second]} {probabilities[second]:.2f}?"
