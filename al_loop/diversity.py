"""Batches whose cells differ: greedy k-centre, typical representatives, and the choice of a batch within classes.

Embeddings are (N, D) float32 of unit length; without any (D = 0) all cells are alike.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import MiniBatchKMeans

NEIGHBOURS = 20  # of the typicality (Hacohen et al. 2022, section 4.1)
MOST_CLUSTERS = 500  # the same
CHUNK = 4096  # rows of a distance matrix at a time


def distances(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """(N, M) Euclidean distances."""
    squares = (a**2).sum(axis=1, dtype=np.float64)[:, None] + (b**2).sum(axis=1, dtype=np.float64)[None, :]
    return np.sqrt(np.clip(squares - 2.0 * (a @ b.T), 0.0, None))


def nearest(a: NDArray[np.float32], b: NDArray[np.float32], unknown: float = 2.0) -> NDArray[np.float64]:
    """(N,) distance of each row of `a` to the nearest of `b`; `unknown` (two opposite unit vectors) without any."""
    found = np.full(len(a), unknown)
    if len(b) and a.shape[1]:
        for start in range(0, len(a), CHUNK):
            found[start : start + CHUNK] = distances(a[start : start + CHUNK], b).min(axis=1)
    return found


def k_centre(embeddings: NDArray[np.float32], reviewed: NDArray[np.float32], batch: int) -> NDArray[np.float64]:
    """(N,) utilities: the distance of each chosen cell when it was chosen, of the others after the last choice.

    Greedy choices come ever nearer, so sorting by utility gives the chosen ones in their order. Ties go to the cell
    whose embedding comes first by value, wherever it stands.
    """
    utilities = nearest(embeddings, reviewed)
    if not len(embeddings) or not embeddings.shape[1]:
        return utilities
    order = np.lexsort(embeddings.T)  # places follow from the values alone
    gap: NDArray[np.float64] = utilities[order]
    points = embeddings[order]
    chosen = np.zeros(len(points), dtype=bool)
    for _ in range(min(batch, len(points))):
        best = int(np.where(chosen, -1.0, gap).argmax())
        chosen[best] = True
        closer = distances(points, points[best : best + 1])[:, 0]
        gap = np.where(chosen, gap, np.minimum(gap, closer))
    utilities[order] = gap
    return utilities


def typical_first(
    embeddings: NDArray[np.float32], reviewed: NDArray[np.float32], batch: int, seed: int
) -> NDArray[np.float64]:
    """(N,) utilities: cluster all cells, reviewed ones too; from each cluster without a reviewed one, the largest
    first, its most typical cell (1 / mean distance to its neighbours); then the next most typical, and so on.

    Chosen cells have utilities above 1, in their order; the others their typicality, scaled to [0, 1].
    """
    count = len(embeddings)
    if count == 0 or embeddings.shape[1] == 0:
        return np.zeros(count)
    order = np.lexsort(embeddings.T)
    points = np.concatenate([embeddings[order], reviewed.reshape(-1, embeddings.shape[1])])
    clusters = int(np.clip(len(reviewed) + batch, 1, min(MOST_CLUSTERS, len(points))))
    member = MiniBatchKMeans(clusters, random_state=seed, n_init=1, batch_size=CHUNK).fit_predict(points)
    typicality = _typicality(points[:count], member[:count])
    held = np.bincount(member[count:], minlength=clusters)
    sizes = np.bincount(member[:count], minlength=clusters)
    utilities = typicality / max(float(typicality.max()), 1e-12)
    queues = [rows[np.argsort(-typicality[rows], kind="stable")] for rows in _members(member[:count], clusters)]
    taken: list[int] = []
    visits = held.copy()
    while len(taken) < min(batch, count):
        # Least covered first, then the largest: each turn covers one cluster once more.
        open_ = [c for c in range(clusters) if len(queues[c])]
        cluster = min(open_, key=lambda c: (visits[c], -sizes[c], c))
        taken.append(int(queues[cluster][0]))
        queues[cluster] = queues[cluster][1:]
        visits[cluster] += 1
    utilities[taken] = 1.0 + np.arange(len(taken), 0, -1)
    result = np.empty(count)
    result[order] = utilities
    return result


def _members(member: NDArray[np.int32], clusters: int) -> list[NDArray[np.int64]]:
    order = np.argsort(member, kind="stable")
    return np.split(order, np.searchsorted(member[order], np.arange(1, clusters)))


def _typicality(points: NDArray[np.float32], member: NDArray[np.int32]) -> NDArray[np.float64]:
    """(N,) 1 / mean distance to the nearest NEIGHBOURS of the same cluster; 1 for a cell that is alone in it."""
    found = np.ones(len(points))
    for rows in _members(member, int(member.max()) + 1):
        if len(rows) < 2:
            continue
        some = rows[:: max(1, len(rows) // 1000)]  # of a huge cluster, a regular sample stands for all
        between = np.sort(distances(points[rows], points[some]), axis=1)[:, 1 : NEIGHBOURS + 1]
        found[rows] = 1.0 / (between.mean(axis=1) + 1e-6)
    return found


def diverse(
    utilities: NDArray[np.float64],
    labels: NDArray[np.int64],
    embeddings: NDArray[np.float32],
    count: int,
    groups: NDArray[np.int64] | None = None,
    per_group: int | None = None,
    oversample: int = 5,
) -> list[int]:
    """`count` rows: useful ones, different from each other within their class, at most `per_group` of one group.

    utilities: (N,); rows with 0 are never chosen. labels: (N,) the class each row counts for. groups: (N,) the slide
    of each row. Of the `oversample` * `count` most useful rows, each class gets as many places as its share of their
    utility; within it, the next row is the one with the greatest utility times distance to the nearest chosen one.
    Where the cap leaves places free, the most useful rows fill them: a cap shall not send an expert home.
    """
    positive = np.flatnonzero(utilities > 0)
    order = positive[np.lexsort((positive, -utilities[positive]))][: oversample * count]
    if len(order) <= count and per_group is None:
        return order.tolist()
    slide = np.unique(np.zeros(len(utilities)) if groups is None else groups, return_inverse=True)[1]
    cap = len(order) if per_group is None else per_group
    used = np.zeros(len(utilities), dtype=np.int64)  # by slide
    chosen: list[int] = []
    for label, places in _quota(utilities[order], labels[order], count):
        rows = order[labels[order] == label]
        gap: NDArray[np.float64] = np.ones(len(rows))
        left = np.ones(len(rows), dtype=bool)
        for _ in range(places):
            free = left & (used[slide[rows]] < cap)
            if not free.any():
                break
            best = int(np.where(free, utilities[rows] * gap, -1.0).argmax())
            left[best] = False
            chosen.append(int(rows[best]))
            used[slide[rows[best]]] += 1
            if embeddings.shape[1]:
                closer = distances(embeddings[rows], embeddings[rows[best : best + 1]])[:, 0]
                gap = np.minimum(gap, np.clip(closer, 1e-3, 1.0))
    taken = set(chosen)
    rest = [row for row in order.tolist() if row not in taken]
    rest.sort(key=lambda row: used[slide[row]] >= cap)  # stable: useful ones first on either side of the cap
    chosen += rest[: max(0, count - len(chosen))]
    return sorted(chosen, key=lambda row: (-utilities[row], row))


def _quota(utilities: NDArray[np.float64], labels: NDArray[np.int64], count: int) -> list[tuple[int, int]]:
    """(class, places), rounded down by share of utility and filled up by the largest remainders."""
    names = np.unique(labels)
    shares = np.array([utilities[labels == name].sum() for name in names])
    exact = shares / max(float(shares.sum()), 1e-12) * min(count, len(labels))
    places = np.floor(exact).astype(np.int64)
    for index in np.argsort(places - exact, kind="stable")[: min(count, len(labels)) - int(places.sum())]:
        places[index] += 1
    return [(int(name), int(number)) for name, number in zip(names, places, strict=True)]
