"""Made-up rows on their way into a database: columns become rows, and what it takes to write them is measured."""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.instances import CLASSES
from db.bulk import insert_rows
from db.models import Base
from db.packed import cell_dtype
from db.session import Database

BATCH = 5000  # rows at a time
POOL = 4096  # different probability vectors and masks; rows take one of them
COMMIT = "commit"
Rows = list[tuple[Any, ...]]


def rows(model: type[Base], count: int, /, **columns: Any) -> Rows:
    """`count` rows of a table: a list holds a column's values, anything else is the value of every row.

    Columns that are not named are NULL. JSON is given as its text.
    """
    names = [column.name for column in model.__table__.columns]
    assert columns.keys() <= set(names), columns.keys() - set(names)
    filled = [columns.get(name) for name in names]
    return list(zip(*(value if isinstance(value, list) else [value] * count for value in filled), strict=True))


class Batch:
    """Rows of one table that come together piece by piece; every piece names the same columns."""

    def __init__(self, model: type[Base]) -> None:
        self.model = model
        self.count = 0
        self._columns: dict[str, list[Any]] = {}

    def extend(self, count: int, /, **columns: Any) -> None:
        """`count` more: a list holds a column's values, anything else is the value of each."""
        for name, value in columns.items():
            self._columns.setdefault(name, []).extend(value if isinstance(value, list) else repeat(value, count))
        self.count += count

    def take(self) -> Rows:
        """The rows so far; then it is empty."""
        found = rows(self.model, self.count, **self._columns) if self.count else []
        self.count, self._columns = 0, {}
        return found


class Ingest:
    """Writes rows in transactions of some ten thousand, and keeps how many and how long, per table.

    Making the rows up is not counted; what `commit` takes is.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self.rows: Counter[str] = Counter()
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._waiting: defaultdict[str, Rows] = defaultdict(list)

    def add(self, model: type[Base], added: Rows) -> None:
        """Rows to write, behind those that came before."""
        self._waiting[model.__tablename__] += added

    def write(self, least: int = 1) -> None:
        """Write what waits, in one transaction; not yet when it is less than so many rows."""
        if sum(map(len, self._waiting.values())) < least:
            return
        with self.database.engine.connect() as connection:
            transaction = connection.begin()
            for table in Base.metadata.sorted_tables:  # one that refers to others comes after them
                added = self._waiting.pop(table.name, [])
                batches = [added[start : start + BATCH] for start in range(0, len(added), BATCH)]
                began = time.perf_counter()
                if added:
                    self.rows[table.name] += insert_rows(connection, table, batches)
                    self.seconds[table.name] += time.perf_counter() - began
            began = time.perf_counter()
            transaction.commit()
            self.seconds[COMMIT] += time.perf_counter() - began


class Pool:
    """What would take too long to make up anew for every cell: probabilities by class, and masks."""

    def __init__(self, rng: np.random.Generator) -> None:
        """labels: (P,) int64 into CLASSES; probabilities: (P, C) float32, the label's the highest."""
        self.labels: NDArray[np.int64] = np.arange(POOL) % len(CLASSES)
        shares = rng.dirichlet([0.4] * (len(CLASSES) + 1), POOL)[:, : len(CLASSES)] * 0.4
        shares[np.arange(POOL), self.labels] += 0.6
        self.probabilities: NDArray[np.float32] = shares.astype(np.float32)
        self.texts = np.array([json.dumps(row) for row in self.probabilities.astype(float).tolist()], dtype=object)
        lengths = rng.integers(40, 90, POOL)
        self.masks = np.array([rng.integers(48, 112, n, dtype=np.uint8).tobytes() for n in lengths], dtype=object)

    def take(self, labels: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """(N,) places in the pool whose label is that of each cell."""
        return rng.integers(0, POOL // len(CLASSES), len(labels)) * len(CLASSES) + labels

    def packed(self, places: NDArray[np.int64], ids: NDArray[np.int64], cells: NDArray[np.int64]) -> NDArray[Any]:
        """(N,) packed cells (`db/packed.py`)."""
        packed = np.zeros(len(places), dtype=cell_dtype(len(CLASSES)))
        packed["predicted_cell_id"], packed["cell_id"] = ids, cells
        packed["probabilities"] = self.probabilities[places]
        packed["score_all_cells"] = self.probabilities[places].max(axis=1)
        packed["score_infected"] = packed["pair_iou"] = np.nan
        return packed


def moments(start: datetime, days: NDArray[np.float64]) -> list[datetime]:
    """Moments so many days after the start."""
    return [start + timedelta(days=value) for value in days.tolist()]


def spread(values: Sequence[Any], counts: NDArray[np.int64]) -> list[Any]:
    """Each value as often as its count says."""
    boxed = np.empty(len(values), dtype=object)
    boxed[:] = values
    found: list[Any] = np.repeat(boxed, counts).tolist()
    return found


def where(holds: Iterable[bool], value: Any) -> list[Any]:
    """The value, or each of a list of values, where it holds; else NULL."""
    values = value if isinstance(value, list) else repeat(value)
    return [each if there else None for there, each in zip(holds, values, strict=False)]
