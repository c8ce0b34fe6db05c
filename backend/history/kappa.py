"""Agreement beyond chance between readers of the same cells, on weighted samples so that resampling is one product.

Cohen's kappa (Cohen 1960) compares two readers; pooled over pairs, the observed and the expected agreement are averaged
before they are compared (De Vries et al. 2008, Field Methods 20:272). Fleiss' kappa (Fleiss 1971, Psych. Bull. 76:378)
takes any readers, and Krippendorff's alpha for nominal data (Krippendorff 2011, "Computing Krippendorff's
alpha-reliability") does right by a number of them that varies.

weights: (S, N) float64, how often each of N kinds of cells counts in each of S samples. Undefined numbers are NaN.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def pair_tables(answers: NDArray[np.int64], weights: Floats, classes: int) -> Floats:
    """(S, K, K) float64: how often one reader said k and the other l. answers: (N, 2) below `classes`, -1 for none."""
    both = (answers >= 0).all(axis=1)
    spots = answers[both, 0] * classes + answers[both, 1]
    return np.asarray((weights[:, both] @ np.eye(classes**2)[spots]).reshape(-1, classes, classes))


def cohen_kappa(tables: Floats) -> Floats:
    """(S,) float64 of tables (S, K, K): (observed - expected) / (1 - expected); NaN where expected is 1."""
    return pooled_kappa(tables[None])


def pooled_kappa(tables: Floats) -> Floats:
    """(S,) float64 of tables (P, S, K, K) of P pairs: kappa of their observed and expected agreement, by cells."""
    total = tables.sum(axis=(2, 3))
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = (tables.sum(axis=3) * tables.sum(axis=2)).sum(axis=2) / total
        observed = np.trace(tables, axis1=2, axis2=3).sum(axis=0) / total.sum(axis=0)
        chance = np.nansum(expected, axis=0) / total.sum(axis=0)
        return _beyond(observed, chance)


def fleiss_kappa(given: NDArray[np.int64], weights: Floats) -> Floats:
    """(S,) float64. given: (N, K), how many readers gave each answer, at least two a cell. weights: (S, N) cells."""
    readers = given.sum(axis=1)
    same = ((given**2).sum(axis=1) - readers) / (readers * (readers - 1))
    shares = (weights @ given) / (weights @ readers)[:, None]
    return _beyond((weights @ same) / weights.sum(axis=1), (shares**2).sum(axis=1))


def krippendorff_alpha(given: NDArray[np.int64], weights: Floats) -> Floats:
    """(S,) float64, nominal: 1 - (n - 1) * sum of o_ck / sum of n_c n_k, both over c != k. As `fleiss_kappa`."""
    readers = given.sum(axis=1)
    differing = weights @ ((readers**2 - (given**2).sum(axis=1)) / (readers - 1))
    named = weights @ given
    total = named.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(1 - (total - 1) * differing / (total**2 - (named**2).sum(axis=1)))


def _beyond(observed: Floats, chance: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(chance < 1 - 1e-12, (observed - chance) / (1 - chance), np.nan)
