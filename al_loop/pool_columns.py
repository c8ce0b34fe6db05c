"""The pool as columns: packed predictions become what a strategy ranks, with what the record knows of each cell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from al_loop.acquisition import PoolCells
from backend.instances import CLASSES
from db.packed import PackedCells


@dataclass(frozen=True)
class Known:
    """What reviews have told so far. All sorted int64, except `codes`.

    reviewed: cells answered one by one. difficult: cells an expert ever called so. codes: (2**16,) reviewed cells of
    each kind.
    """

    reviewed: NDArray[np.int64]
    difficult: NDArray[np.int64]
    codes: NDArray[np.int64]


def columns(packed: PackedCells, known: Known) -> tuple[PoolCells, NDArray[np.int64]]:
    """The cells nobody has answered, and their rows in `packed`: (N,) int64."""
    content = packed.cells
    answered = np.isin(content["cell_id"], known.reviewed)
    rows = np.flatnonzero(~answered)
    codes = known.codes + np.bincount(content["code"][answered], minlength=len(known.codes))
    left = content[rows] if answered.any() else content
    cells = PoolCells(
        image=packed.image[rows],
        probabilities=left["probabilities"] if len(left) else np.zeros((0, len(CLASSES)), dtype=np.float32),
        score_all_cells=left["score_all_cells"],
        score_infected=left["score_infected"],
        pair_iou=left["pair_iou"],
        disputed=left["disputed"],
        difficult=np.isin(left["cell_id"], known.difficult).astype(np.float32),
        novelty=novelty(left["code"], codes),
    )
    return cells, rows


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
