"""95 % intervals of shares, such as that of infected cells: of cells drawn one by one, or field by field.

Wilson's interval (E. B. Wilson, J. Am. Stat. Assoc. 22 (1927) 209-212) takes cells for independent. Cells of a field
are alike, so n cells of few fields tell as much as n / (design effect) cells drawn one by one: Wilson's interval of
that effective number (Kish 1965, Survey Sampling). The design effect is that of the ratio estimator, from how much the
fields differ. Few fields, or few infected cells, know it badly: it is averaged with what CORRELATION would cause, by
degrees of freedom, as Smyth (2004, Stat. Appl. Genet. Mol. Biol. 3:3) does with variances of few samples, and the
effective number is reduced by the squared ratio of Student's quantile to the normal one (Korn and Graubard 1998,
Survey Methodology 24:193). How often it covers, and other intervals beside it: docs/results/parasitaemia-intervals.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

Floats = NDArray[np.float64]

TAIL = 0.025
Z = float(ndtri(1 - TAIL))
CORRELATION = 0.01  # between cells of a cluster, assumed before any is seen: in the middle of 0 to .05
WEIGHT = 4.0  # degrees of freedom that the assumption is worth: as many as five fields


@dataclass(frozen=True)
class Shares:
    """Shares of G groups, (G,) float64 each, within 0 and 1; NaN where nothing was counted.

    clusters: (G,) int64, how many of them hold anything. assumed: (G,) bool, the data say nothing about how alike the
    cells of a cluster are, as there is one cluster or less than two hits (or misses): the width is that of CORRELATION.
    """

    value: Floats
    low: Floats
    high: Floats
    clusters: NDArray[np.int64]
    assumed: NDArray[np.bool_]


def wilson(share: Floats, trials: Floats) -> tuple[Floats, Floats]:
    """Wilson's limits, (G,) each, of shares among so many independent trials (which need not be whole).

    With no hit at all the upper limit is 3.84 / (trials + 3.84): that of Clopper and Pearson (3.69 / trials) for all
    purposes; the rule of three is its one-sided sister. NaN where there are no trials.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = 1 + Z**2 / trials
        centre = (share + Z**2 / (2 * trials)) / scale
        half = Z * np.sqrt(share * (1 - share) / trials + Z**2 / (4 * trials**2)) / scale
    # Exactly 0 without a hit, and 1 without a miss: no rounding left over.
    return np.where(share == 0, 0.0, centre - half), np.where(share == 1, 1.0, centre + half)


def independent(hits: NDArray[np.integer], trials: NDArray[np.integer]) -> Shares:
    """Shares of groups whose trials are independent. hits, trials: (G,)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.asarray(hits / trials, dtype=np.float64)
    low, high = wilson(share, np.asarray(trials, dtype=np.float64))
    return Shares(share, low, high, (trials > 0).astype(np.int64), np.zeros(len(share), dtype=bool))


def clustered(
    hits: NDArray[np.integer], trials: NDArray[np.integer], group: NDArray[np.integer], groups: int
) -> Shares:
    """Shares of groups of clusters. hits, trials: (C,) per cluster; group: (C,) int64 below `groups`, where it belongs.

    The interval is never narrower than if all trials were independent.
    """

    def total(values: NDArray[np.generic]) -> Floats:
        return np.asarray(np.bincount(group, values, groups), dtype=np.float64)

    n, found, clusters = total(trials), total(hits), total(trials > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = found / n
        spread = total((hits - share[group] * trials) ** 2) * clusters / (clusters - 1)
        seen = spread / (n * share * (1 - share))
        expected = 1 + (total(trials**2) / n - 1) * CORRELATION
        freedom = np.maximum(np.minimum(clusters, np.minimum(found, n - found)) - 1, 0)
        known = np.where(freedom > 0, seen, 0.0)
        effect = np.maximum((freedom * known + WEIGHT * expected) / (freedom + WEIGHT), 1.0)
        low, high = wilson(share, n / effect * (Z / stdtrit(freedom + WEIGHT, 1 - TAIL)) ** 2)
    return Shares(share, low, high, clusters.astype(np.int64), freedom == 0)
