"""Softmax regression that begins with what is believed already: without an example its weights are the given ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import softmax

Floats = NDArray[np.float64]
ITERATIONS = 60


def fit_softmax(
    inputs: Floats,
    labels: NDArray[np.int64],
    weights: Floats,
    towards: Floats,
    begin: Floats,
    decay: float | Floats,
) -> Floats:
    """(D, C) weights for inputs (N, D), labels (N,) of C classes and weights (N,) of the examples.

    They minimise the weighted cross-entropy, summed, plus half the squared distance to `towards` (D, C) times decay:
    one number, or one for each weight. begin: where to begin; it changes the time and not the result.
    """
    truth = np.eye(towards.shape[1])[labels]

    def loss(flat: Floats) -> tuple[float, Floats]:
        matrix = flat.reshape(towards.shape)
        shares = softmax(inputs @ matrix, axis=1)
        away = matrix - towards
        picked = np.maximum(shares[np.arange(len(labels)), labels], 1e-300)
        value = -(weights * np.log(picked)).sum() + (decay * away**2).sum() / 2
        slope = inputs.T @ ((shares - truth) * weights[:, None]) + decay * away
        return float(value), slope.ravel()

    found: Any = minimize(loss, begin.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": ITERATIONS})
    result: Floats = found.x.reshape(towards.shape)
    return result
