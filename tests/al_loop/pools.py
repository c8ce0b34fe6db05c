"""Pools of made-up cells for strategies and batches."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from al_loop.acquisition import AcquisitionConfig, PoolCells, rarity_weights
from al_loop.strategies import Pool
from backend.instances import CLASSES

COUNTS = {"red blood cell": 4000, "trophozoite": 60, "ring": 15}
WEIGHTS = rarity_weights(COUNTS, AcquisitionConfig())


def cells(seed: int, n: int = 60, images: int = 6) -> PoolCells:
    """Cells of every kind: certain and torn, seen by one model or both, difficult, suspicious and new ones."""
    rng = np.random.default_rng(seed)
    scores = rng.uniform(0, 1, (2, n))
    scores[rng.uniform(size=(2, n)) < 0.3] = np.nan
    return PoolCells(
        image=np.sort(rng.integers(0, images, n)),
        probabilities=rng.dirichlet(np.full(len(CLASSES) + 1, 0.3), n)[:, :-1],
        score_all_cells=scores[0],
        score_infected=scores[1],
        pair_iou=np.where(np.isnan(scores).any(axis=0), np.nan, rng.uniform(0.5, 1, n)),
        disputed=rng.uniform(size=n) < 0.2,
        difficult=np.where(rng.uniform(size=n) < 0.1, 1.0, rng.uniform(0, 0.2, n)),
        suspicion=np.where(rng.uniform(size=n) < 0.1, rng.uniform(size=n), 0.0),
        novelty=rng.uniform(0, 1, n) ** 4,
    )


def certain_reds(n: int, image: int = 0) -> PoolCells:
    """Cells nobody doubts."""
    probabilities = np.zeros((n, len(CLASSES)))
    probabilities[:, 0] = 0.995
    return PoolCells(
        image=np.full(n, image),
        probabilities=probabilities,
        score_all_cells=np.full(n, 0.995),
        score_infected=np.full(n, np.nan),
        pair_iou=np.full(n, np.nan),
        disputed=np.zeros(n, dtype=bool),
    )


def joined(*parts: PoolCells) -> PoolCells:
    """All their cells, in this order."""
    names = [column.name for column in dataclasses.fields(PoolCells)]
    return PoolCells(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def unit(seed: int, n: int, dimensions: int = 16) -> NDArray[np.float32]:
    """Embeddings around a few centres, of unit length."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(5, dimensions))
    points = centres[rng.integers(0, 5, n)] + 0.3 * rng.normal(size=(n, dimensions))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


def pool(seed: int, n: int = 60, reviewed: int = 7) -> Pool:
    """A pool with embeddings, some cells reviewed."""
    return Pool(cells(seed, n), WEIGHTS, unit(seed, n), unit(seed + 1, reviewed))


def reordered(known: Pool, order: NDArray[np.int64]) -> Pool:
    """The same pool, its cells in another order."""
    return dataclasses.replace(known, cells=known.cells.take(order), embeddings=known.embeddings[order])
