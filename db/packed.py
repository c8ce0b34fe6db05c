"""Predicted cells as bytes: columns that numpy reads without touching a cell, beside the rows that people query.

A million rows of `predicted_cells` take half a minute to read; the same cells, packed per prediction, a fraction of a
second. Both are written together and never change.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from db.chunks import chunks
from db.models import PackedPrediction, PredictedCell

EMBEDDING = np.dtype("<f2")


def cell_dtype(classes: int) -> np.dtype[Any]:
    """One packed cell, 31 + 4 * classes bytes. code: the kind of cell it looks like (`backend/embed.py`).

    Scores of a model that saw nothing, and the overlap of what only one saw, are NaN.
    """
    return np.dtype(
        [
            ("predicted_cell_id", "<i8"),
            ("cell_id", "<i8"),
            ("probabilities", "<f4", (classes,)),
            ("score_all_cells", "<f4"),
            ("score_infected", "<f4"),
            ("pair_iou", "<f4"),
            ("code", "<u2"),
            ("disputed", "?"),
        ]
    )


@dataclass(frozen=True)
class PackedCells:
    """Cells of many predictions: `cells` (N,) of `cell_dtype`, and `image` (N,) int64, the image of each."""

    image: NDArray[np.int64]
    cells: NDArray[Any]

    def __len__(self) -> int:
        return len(self.cells)


def pack(rows: Sequence[PredictedCell], codes: Sequence[int] | None = None) -> bytes:
    """The cells of one prediction, in their order. codes: 0 where they are left out."""
    packed = np.zeros(len(rows), dtype=cell_dtype(len(rows[0].probabilities) if rows else 0))
    for name in ("score_all_cells", "score_infected", "pair_iou"):
        values = [getattr(row, name) for row in rows]
        packed[name] = [np.nan if value is None else value for value in values]
    packed["predicted_cell_id"] = [row.id for row in rows]
    packed["cell_id"] = [row.cell_id for row in rows]
    packed["disputed"] = [row.disputed for row in rows]
    packed["code"] = 0 if codes is None else codes
    if rows:
        packed["probabilities"] = [row.probabilities for row in rows]
    return packed.tobytes()


def unpack(rows: Iterable[tuple[int, int, bytes]]) -> PackedCells:
    """The cells of many predictions by one pair. rows: (image id, number of cells, packed cells)."""
    images, counts, parts = [], [], []
    for image, count, content in rows:
        if count:
            images.append(image)
            counts.append(count)
            parts.append(content)
    if not parts:
        return PackedCells(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=cell_dtype(0)))
    fixed = cell_dtype(0).itemsize
    classes = (len(parts[0]) // counts[0] - fixed) // 4
    cells = np.frombuffer(b"".join(parts), dtype=cell_dtype(classes))
    return PackedCells(np.repeat(np.array(images, dtype=np.int64), counts), cells)


def embeddings(session: Session, prediction_ids: Sequence[int]) -> dict[int, NDArray[np.float32]]:
    """(N, D) float32 of unit length by prediction id; predictions stored without any are absent."""
    found: dict[int, NDArray[np.float32]] = {}
    for chunk in chunks(prediction_ids):
        rows = session.execute(
            select(PackedPrediction.prediction_id, PackedPrediction.count, PackedPrediction.embeddings).where(
                PackedPrediction.prediction_id.in_(chunk),
                PackedPrediction.embeddings.is_not(None),
                PackedPrediction.count > 0,
            )
        )
        for prediction_id, count, content in rows:
            flat = np.frombuffer(content or b"", dtype=EMBEDDING).astype(np.float32)
            found[prediction_id] = flat.reshape(count, -1)
    return found
