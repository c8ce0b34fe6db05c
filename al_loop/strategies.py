"""Which cells an expert should see next: strategies behind one contract, ours beside those of the literature.

A strategy is a pure function `(pool, batch, rng) -> utilities`: (N,) float64, finite, the highest first. Those that
choose a whole batch at once (core-set, TypiClust) give the cells they choose the highest utilities, in their order;
all others do not look at `batch`. A strategy draws from `rng` only to break what would otherwise be arbitrary, and
what it says of a cell does not depend on where the cell stands in the pool.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from al_loop.acquisition import AcquisitionConfig, PoolCells, disagreement, score_cells
from al_loop.diversity import k_centre, typical_first
from backend.instances import CLASSES, INFECTED_INDEX


@dataclass(frozen=True)
class Pool:
    """What a strategy may know: the cells nobody has reviewed, and what was learned from those that were.

    weights: (len(CLASSES),) as `rarity_weights` gives them. embeddings: (N, D) float32 of unit length.
    reviewed: (L, D) float32, embeddings of reviewed cells. Without embeddings, D is 0.
    """

    cells: PoolCells
    weights: NDArray[np.float64]
    embeddings: NDArray[np.float32]
    reviewed: NDArray[np.float32]
    config: AcquisitionConfig = field(default_factory=AcquisitionConfig)

    def __len__(self) -> int:
        return len(self.cells)


Strategy = Callable[[Pool, int, np.random.Generator], NDArray[np.float64]]


def ours(pool: Pool, batch: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """The strongest of seven doubts, times the rarity of what the cell may be (`acquisition.score_cells`); behind what
    is in doubt, the likelier parasites. Surely healthy cells, which the loop never asks about, follow in that order.
    """
    scores = score_cells(pool.cells, pool.weights, pool.config)
    return scores.doubt * scores.weight + scores.confirm


def entropy(pool: Pool, batch: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Shannon entropy of the class distribution, in bits; what is missing to 1 is "no cell" (Settles 2009)."""
    shares = _with_rest(pool.cells)
    with np.errstate(divide="ignore", invalid="ignore"):
        return -np.where(shares > 0, shares * np.log2(shares), 0.0).sum(axis=1)


def margin(pool: Pool, batch: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """1 - (best - second best), "no cell" among them (Scheffer et al. 2001)."""
    top = np.sort(_with_rest(pool.cells), axis=1)[:, -2:]
    return 1.0 - (top[:, 1] - top[:, 0])


def least_confidence(pool: Pool, batch: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """1 - the best probability, "no cell" among them (Lewis and Gale 1994)."""
    return 1.0 - _with_rest(pool.cells).max(axis=1, initial=0.0)


def disagree(pool: Pool, batch: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """How differently the two models see the cell (query by committee; `acquisition.disagreement`)."""
    return disagreement(pool.cells).astype(np.float64)


def rare_class(pool: Pool, batch: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """The expected rarity weight of an infected cell: greedy for parasites, blind to doubt."""
    infected = _finite(pool.cells)[:, INFECTED_INDEX]
    return infected @ pool.weights[INFECTED_INDEX]


def core_set(pool: Pool, batch: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Greedy k-centre: the distance to the nearest cell reviewed or chosen before (Sener and Savarese 2018)."""
    return k_centre(pool.embeddings, pool.reviewed, batch)


def typiclust(pool: Pool, batch: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """The most typical cell of each cluster that holds no reviewed one, the largest first (Hacohen et al. 2022)."""
    return typical_first(pool.embeddings, pool.reviewed, batch, int(rng.integers(2**31)))


def random(pool: Pool, batch: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Uniform: what a person who scans field by field would meet."""
    return rng.random(len(pool))


STRATEGIES: dict[str, Strategy] = {
    "ours": ours,
    "entropy": entropy,
    "margin": margin,
    "least-confidence": least_confidence,
    "disagreement": disagree,
    "rare-class": rare_class,
    "core-set": core_set,
    "typiclust": typiclust,
    "random": random,
}


def strategy_named(name: str) -> Strategy:
    """The strategy of this name. Raises ValueError for any other name, with those there are."""
    if name not in STRATEGIES:
        raise ValueError(f"expected a strategy of {', '.join(STRATEGIES)}, got {name!r}")
    return STRATEGIES[name]


def _finite(cells: PoolCells) -> NDArray[np.float64]:
    return np.clip(np.nan_to_num(np.asarray(cells.probabilities, dtype=np.float64)), 0.0, 1.0)


def _with_rest(cells: PoolCells) -> NDArray[np.float64]:
    """(N, len(CLASSES) + 1): the distribution with "no cell" as its last class."""
    named = _finite(cells)
    rest = np.clip(1.0 - named.sum(axis=1, keepdims=True), 0.0, 1.0)
    return np.concatenate([named, rest], axis=1).reshape(len(cells), len(CLASSES) + 1)
