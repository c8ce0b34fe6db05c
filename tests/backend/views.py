"""Made-up views of one image by two detectors, for testing their fusion."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from backend.instances import CLASS_INDEX, CLASSES, INFECTED, Instances

SIZE = (600, 800)


def view(*cells: tuple[tuple[float, float, float, float], dict[str, float]], size: tuple[int, int] = SIZE) -> Instances:
    """Instances from (box, {class name: probability}) pairs; the score is the sum, the label the most probable."""
    probabilities = np.zeros((len(cells), len(CLASSES)), dtype=np.float32)
    for row, (_, distribution) in enumerate(cells):
        for name, value in distribution.items():
            probabilities[row, CLASS_INDEX[name]] = value
    return Instances(
        image_size=size,
        boxes=np.array([box for box, _ in cells], dtype=np.float32).reshape(-1, 4),
        labels=probabilities.argmax(axis=1).astype(np.int64),
        scores=np.clip(probabilities.sum(axis=1), 0, 1),
        probabilities=probabilities,
    )


def _random(seed: int, names: tuple[str, ...], count: int) -> Instances:
    rng = np.random.default_rng(seed)
    corners = np.column_stack([rng.uniform(0, 700, count), rng.uniform(0, 500, count)])
    sides = rng.uniform(20, 100, (count, 2))
    cells = []
    for (x, y), (w, h) in zip(corners, sides, strict=True):
        shares = rng.dirichlet(np.full(len(names), 0.3)) * rng.uniform(0.05, 1)
        cells.append(((x, y, x + w, y + h), dict(zip(names, shares, strict=True))))
    return view(*cells)


all_cells_views = st.builds(_random, st.integers(0, 10**6), st.just(CLASSES), st.integers(0, 25))
infected_views = st.builds(_random, st.integers(0, 10**6), st.just(INFECTED), st.integers(0, 10))
