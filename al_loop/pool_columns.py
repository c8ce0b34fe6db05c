"""The pool as columns: packed predictions become what a strategy ranks, with what the record knows of each cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from al_loop.acquisition import PoolCells
from al_loop.difficulty import Difficulty, difficulty_features, fit_difficulty
from backend.instances import CLASSES
from db.packed import PackedCells

KINDS = 1 << 16  # of cells that a code can tell apart
LEARNED_FROM = 20_000  # reviewed cells that P(difficult) is fitted on: more change nothing but the time


@dataclass(frozen=True)
class Known:
    """What reviews have told so far.

    reviewed, difficult: (K,) int64, sorted: cells answered one by one; cells an expert ever called difficult.
    answered: the cells predicted in fields that were answered whole.
    """

    reviewed: NDArray[np.int64]
    difficult: NDArray[np.int64]
    answered: PackedCells


def columns(packed: PackedCells, known: Known) -> tuple[PoolCells, NDArray[np.int64]]:
    """The cells nobody has answered, and their rows in `packed`: (N,) int64."""
    content = packed.cells
    answered = np.isin(content["cell_id"], known.reviewed)
    rows = np.flatnonzero(~answered)
    left, told = (content[rows], content[answered]) if answered.any() else (content, content[:0])
    read = [part for part in (told, known.answered.cells) if len(part)]
    codes = sum((np.bincount(part["code"], minlength=KINDS) for part in read), np.zeros(KINDS, dtype=np.int64))
    cells = as_cells(packed.image[rows], left)
    called = np.isin(left["cell_id"], known.difficult)
    model = _difficulty(read, known.difficult) if len(cells) else None
    expected = model.predict(difficulty_features(cells)) if model else np.zeros(len(cells), dtype=np.float32)
    difficult = np.where(called, np.float32(1.0), expected)
    return replace(cells, difficult=difficult, novelty=novelty(left["code"], codes)), rows


def as_cells(image: NDArray[np.int64], content: NDArray[Any]) -> PoolCells:
    """Packed cells as the columns of a pool; image: (N,) int64."""
    return PoolCells(
        image=image,
        probabilities=content["probabilities"] if len(content) else np.zeros((0, len(CLASSES)), dtype=np.float32),
        score_all_cells=content["score_all_cells"],
        score_infected=content["score_infected"],
        pair_iou=content["pair_iou"],
        disputed=content["disputed"],
    )


def _difficulty(read: Sequence[NDArray[Any]], difficult: NDArray[np.int64]) -> Difficulty | None:
    """P(difficult) as reviewed cells teach it; None while too few of them are difficult."""
    if not read or not len(difficult):
        return None
    content = np.concatenate(read)
    content = content[:: 1 + len(content) // LEARNED_FROM]
    cells = as_cells(np.zeros(len(content), dtype=np.int64), content)
    return fit_difficulty(difficulty_features(cells), np.isin(content["cell_id"], difficult))


def novelty(codes: NDArray[np.integer], reviewed: NDArray[np.int64]) -> NDArray[np.float32]:
    """(N,) float32 in [0, 1]: exp(-reviewed cells of the same kind), times how much of the pool reviewed kinds cover.

    codes: (N,) kind of each cell, 0 for none. reviewed: (2**16,) reviewed cells of each kind. As long as little was
    reviewed, nearly everything is new and newness says nothing; once most of the pool looks like reviewed cells, what
    does not stands out.
    """
    if not len(codes):
        return np.zeros(0, dtype=np.float32)
    covered = float((reviewed[codes] > 0).mean())
    of_kind = (covered * np.exp(-reviewed.astype(np.float32))).astype(np.float32)
    of_kind[0] = 0.0  # no kind: predicted before embeddings were kept
    return of_kind[codes]
